package maestro.effect.builtin_test

import data.maestro.effect.builtin

ada := {"id": "ada", "identity": {"kind": "local", "user": "ada"}, "roles": []}

good := {
	"initiator": {"id": "lin", "identity": {"kind": "local", "user": "lin"}, "roles": []},
	"effect": {"publishes": true},
	"environment": {"tier": "staging", "name": "s"},
	"checks": [scan, {"step": "go", "kind": "gate", "outcome": "passed"}],
	"records": [{"step": "plan", "state": "attested"}],
	"approvals": [{"gate": "go", "principal": ada, "state": "granted"}],
}

scan := {"step": "scan", "kind": "scan", "outcome": "passed"}

codes(request) := {reason.code | some reason in builtin.deny with input as request}

with_change(change) := codes(object.union(good, change))

test_what_is_in_order_goes if codes(good) == set()

test_a_check_that_did_not_pass_blocks if {
	every outcome in ["failed", "skipped", "tolerated"] {
		with_change({"checks": [{"step": "scan", "kind": "scan", "outcome": outcome}]}) == {"unmet_check"}
	}
}

test_a_failed_test_alone_does_not_block if {
	with_change({"checks": [{"step": "unit", "kind": "test", "outcome": "tolerated"}]}) == set()
}

test_an_approval_that_is_gone_does_not_hold if {
	every state in ["revoked", "expired", "rejected", "superseded"] {
		with_change({"approvals": [{"gate": "go", "principal": ada, "state": state}]}) == {"approval_gone"}
	}
	with_change({"approvals": [{"gate": "other", "principal": ada, "state": "granted"}]}) == {"approval_gone"}
	with_change({"approvals": []}) == {"approval_gone"}
}

test_one_that_holds_is_enough if {
	gone := {"gate": "go", "principal": ada, "state": "revoked"}
	with_change({"approvals": [gone, {"gate": "go", "principal": ada, "state": "granted"}]}) == set()
}

test_records_that_are_not_attested_are_not_published if {
	every state in ["unattested", "stale"] {
		with_change({"records": [{"step": "plan", "state": state}]}) == {"untrusted_record"}
	}
}

test_what_is_not_published_may_rest_on_them if {
	with_change({"effect": {"publishes": false}, "records": [{"step": "plan", "state": "stale"}]}) == set()
}

test_the_initiator_does_not_approve if {
	with_change({"initiator": ada}) == {"initiator_approved"}
}

test_a_local_approval_does_not_count_in_production if {
	with_change({"environment": {"tier": "production", "name": "p"}}) == {"local_approval"}
}
