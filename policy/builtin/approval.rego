# Who may speak at a gate.
package maestro.approval.builtin

deny contains {
	"code": "initiator_approves",
	"msg": sprintf("`%s` started the run, and somebody else has to approve it", [input.approver.id]),
} if {
	input.request == "approve"
	input.approver.id == input.initiator.id
}

# The user of an operating system is whoever sits at the machine.
deny contains {
	"code": "local_identity",
	"msg": sprintf("nobody vouched for `%s`, and `%s` is production", [input.approver.id, input.environment.name]),
} if {
	input.request == "approve"
	input.environment.tier == "production"
	input.approver.identity.kind == "local"
}

deny contains {
	"code": "missing_role",
	"msg": sprintf("the gate `%s` asks for one of the roles %s", [input.gate.name, concat(", ", input.gate.roles)]),
} if {
	count(input.gate.roles) > 0
	not has_role
}

has_role if {
	some role in input.approver.roles
	role in input.gate.roles
}

deny contains {
	"code": "approved_before",
	"msg": sprintf("`%s` has approved at `%s` already", [input.approver.id, input.gate.name]),
} if {
	input.request == "approve"
	some earlier in input.approvals
	earlier.principal.id == input.approver.id
	earlier.state == "granted"
}
