package maestro.effect.release_test

import data.maestro.effect.release

rules := {"approvals": 2, "evidence": ["sbom", "provenance"]}

app := {"name": "app", "digest": "sha256:aa/1", "signature": {"state": "signed", "signer": "ci"}}

document(kind) := {"kind": kind, "digest": "sha256:bb/1", "subject": "sha256:aa/1"}

approval(id) := {"gate": "go", "principal": {"id": id}, "state": "granted"}

good := {
	"initiator": {"id": "lin"},
	"effect": {"publishes": true},
	"artifacts": [app],
	"evidence": [document("sbom"), document("provenance")],
	"approvals": [approval("ada"), approval("bob")],
}

codes(request) := {reason.code | some reason in release.deny with input as request
	with data.release as rules}

allowed(request) if release.allow with input as request with data.release as rules

with_change(change) := codes(object.union(good, change))

test_a_complete_release_goes if {
	codes(good) == set()
	allowed(good)
}

test_one_person_is_not_two if {
	with_change({"approvals": [approval("ada")]}) == {"approvals_missing"}
	with_change({"approvals": [approval("ada"), approval("ada")]}) == {"approvals_missing"}
	with_change({"approvals": [approval("ada"), approval("lin")]}) == {"approvals_missing"}
}

test_each_kind_of_evidence_is_needed if {
	with_change({"evidence": [document("sbom")]}) == {"evidence_missing"}
	with_change({"evidence": []}) == {"evidence_missing"}
}

test_evidence_about_something_else_does_not_count if {
	other := object.union(document("sbom"), {"subject": "sha256:cc/1"})
	with_change({"evidence": [other, document("provenance")]}) == {"evidence_missing"}
}

test_evidence_without_a_digest_does_not_count if {
	empty := object.union(document("sbom"), {"digest": ""})
	with_change({"evidence": [empty, document("provenance")]}) == {"evidence_missing"}
}

test_every_artifact_is_signed if {
	with_change({"artifacts": [object.union(app, {"signature": {"state": "unsigned"}})]}) == {"unsigned"}
}

test_nothing_is_no_release if {
	with_change({"artifacts": []}) == {"nothing_released"}
	not allowed(object.union(good, {"artifacts": []}))
}

test_missing_input_does_not_pass if {
	not allowed({})
	not allowed({"effect": {"publishes": true}})
	not allowed(object.remove(good, ["evidence"]))
	not allowed(object.remove(good, ["approvals"]))
}

test_what_is_not_published_needs_nothing if {
	allowed({"effect": {"publishes": false}})
}
