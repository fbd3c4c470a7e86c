package maestro.run_start.builtin_test

import data.maestro.run_start.builtin

fork := {"kind": "pull_request", "number": 7, "from_fork": true}

production := {"tier": "production", "name": "prod"}

test_a_fork_does_not_start_in_production if {
	some reason in builtin.deny with input as {"trigger": fork, "environment": production}
	reason.code == "fork_in_production"
}

test_a_fork_starts_elsewhere if {
	count(builtin.deny) == 0 with input as {"trigger": fork, "environment": {"tier": "staging", "name": "s"}}
}

test_a_push_starts_in_production if {
	push := {"kind": "push", "branch": "main"}
	count(builtin.deny) == 0 with input as {"trigger": push, "environment": production}
}
