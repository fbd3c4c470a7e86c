package maestro.step_start.egress_allowlist_test

import data.maestro.step_start.egress_allowlist

listed := {"hosts": ["docs.example.com", "*.packages.example.com"], "ports": [443]}

codes(far) := {reason.code | some reason in egress_allowlist.deny with input as {"step": {"path": "scrape"}, "egress": far}
	with data.egress as listed}

test_listed_hosts_are_reached if {
	codes([{"host": "docs.example.com", "port": 443}]) == set()
	codes([{"host": "Docs.Example.com", "port": 443}]) == set()
	codes([{"host": "npm.packages.example.com", "port": 443}]) == set()
	codes([]) == set()
}

test_others_are_not if {
	every host in ["example.com", "docs.example.com.evil.test", "a.b.packages.example.com", "packages.example.com", "10.0.0.1"] {
		codes([{"host": host, "port": 443}]) == {"host_not_listed"}
	}
}

test_one_host_too_many_is_enough if {
	far := [{"host": "docs.example.com", "port": 443}, {"host": "evil.test", "port": 22}]
	codes(far) == {"host_not_listed", "port_not_listed"}
}
