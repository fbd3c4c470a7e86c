package maestro.approval.builtin_test

import data.maestro.approval.builtin

person(id, kind) := {"id": id, "identity": {"kind": kind}, "roles": ["release-manager"]}

good := {
	"request": "approve",
	"initiator": person("lin", "oidc"),
	"approver": person("ada", "oidc"),
	"gate": {"name": "go", "required": 1, "roles": ["release-manager"]},
	"environment": {"tier": "production", "name": "prod"},
	"approvals": [],
}

codes(request) := {reason.code | some reason in builtin.deny with input as request}

with_change(change) := codes(object.union(good, change))

test_somebody_else_approves if codes(good) == set()

test_the_initiator_does_not_approve if {
	with_change({"approver": person("lin", "oidc")}) == {"initiator_approves"}
}

test_the_initiator_may_reject if {
	with_change({"approver": person("lin", "oidc"), "request": "reject"}) == set()
}

test_a_local_identity_does_not_approve_in_production if {
	with_change({"approver": person("ada", "local")}) == {"local_identity"}
	with_change({"approver": person("ada", "local"), "environment": {"tier": "staging", "name": "s"}}) == set()
}

test_a_role_of_the_gate_is_needed if {
	with_change({"gate": {"name": "go", "required": 1, "roles": ["admin"]}}) == {"missing_role"}
	with_change({"gate": {"name": "go", "required": 1, "roles": []}}) == set()
}

test_once_is_enough if {
	earlier := {"gate": "go", "principal": person("ada", "oidc"), "state": "granted"}
	with_change({"approvals": [earlier]}) == {"approved_before"}
	with_change({"approvals": [object.union(earlier, {"state": "revoked"})]}) == set()
}
