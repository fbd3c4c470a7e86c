package maestro.step_start.builtin_test

import data.maestro.step_start.builtin

step(class) := {"path": "build", "uses": "run.command", "class": class}

far := {"host": "docs.example.com", "port": 443}

codes(request) := {reason.code | some reason in builtin.deny with input as request}

test_a_pure_step_reaches_nothing if {
	request := {"step": step("pure"), "egress": [far], "secrets": ["vault:kv/ci#token"]}
	codes(request) == {"pure_step_reaches_out", "pure_step_reads_secret"}
}

test_a_recorded_step_may if {
	codes({"step": step("recorded"), "egress": [far], "secrets": ["vault:kv/ci#token"]}) == set()
}
