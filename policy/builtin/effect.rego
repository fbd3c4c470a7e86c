# What may leave for the outside world.
package maestro.effect.builtin

guards := {"gate", "scan", "signature"}

# A gate that did not hold holds nothing back, so what follows it stays.
deny contains {
	"code": "unmet_check",
	"msg": sprintf("the %s `%s` above it is %s", [check.kind, check.step, check.outcome]),
} if {
	some check in input.checks
	check.kind in guards
	check.outcome != "passed"
}

# A gate let pass what nobody approves any more: it was taken back, or is too old.
deny contains {
	"code": "approval_gone",
	"msg": sprintf("no approval at the gate `%s` holds", [check.step]),
} if {
	some check in input.checks
	check.kind == "gate"
	check.outcome == "passed"
	not is_approved(check.step)
}

is_approved(gate) if {
	some approval in input.approvals
	approval.gate == gate
	approval.state == "granted"
}

# What is published is believed by others.
deny contains {
	"code": "untrusted_record",
	"msg": sprintf("the recorded answer of `%s` is %s", [record.step, record.state]),
} if {
	input.effect.publishes
	some record in input.records
	record.state != "attested"
}

deny contains {
	"code": "initiator_approved",
	"msg": sprintf("`%s` started the run, and approved at `%s`", [approval.principal.id, approval.gate]),
} if {
	some approval in input.approvals
	approval.state == "granted"
	approval.principal.id == input.initiator.id
}

deny contains {
	"code": "local_approval",
	"msg": sprintf("nobody vouched for `%s`, who approved at `%s`", [approval.principal.id, approval.gate]),
} if {
	input.environment.tier == "production"
	some approval in input.approvals
	approval.state == "granted"
	approval.principal.identity.kind == "local"
}
