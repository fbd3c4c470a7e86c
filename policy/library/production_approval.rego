# Effects in production need approvals.
#
# `data.production.approvals` is how many people, `data.production.roles` which of them count.
# A reason that names `approvals` makes the effect wait for them at the gate above it.
package maestro.effect.production_approval

deny contains {
	"code": "approval_missing",
	"approvals": data.production.approvals,
	"msg": sprintf("`%s` is production: %d of %d approvals are there", [input.environment.name, count(approvers), data.production.approvals]),
} if {
	input.environment.tier == "production"
	count(approvers) < data.production.approvals
}

# Distinct people, never the one who started the run.
approvers contains approval.principal.id if {
	some approval in input.approvals
	approval.state == "granted"
	approval.principal.id != input.initiator.id
	some role in approval.principal.roles
	role in data.production.roles
}
