package maestro.effect.production_approval_test

import data.maestro.effect.production_approval

person(id, role) := {"id": id, "identity": {"kind": "oidc"}, "roles": [role]}

approval(id, role, state) := {"gate": "go", "principal": person(id, role), "state": state}

codes(tier, approvals) := {reason.code | some reason in production_approval.deny with input as {
	"environment": {"tier": tier, "name": "e"},
	"initiator": person("lin", "developer"),
	"approvals": approvals,
}
	with data.production as {"approvals": 1, "roles": ["release-manager"]}}

test_production_needs_an_approval if codes("production", []) == {"approval_missing"}

test_staging_needs_none if codes("staging", []) == set()

test_a_release_manager_is_enough if {
	codes("production", [approval("ada", "release-manager", "granted")]) == set()
}

test_what_does_not_count if {
	every approvals in [
		[approval("ada", "developer", "granted")],
		[approval("lin", "release-manager", "granted")],
		[approval("ada", "release-manager", "revoked")],
		[approval("ada", "release-manager", "superseded")],
	] {
		codes("production", approvals) == {"approval_missing"}
	}
}
