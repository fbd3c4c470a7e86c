# What a step may reach.
package maestro.step_start.builtin

# The result of a pure step is reused wherever its inputs are the same, so nothing else may enter.
deny contains {
	"code": "pure_step_reaches_out",
	"msg": sprintf("the step `%s` is pure, and declares egress to %s:%d", [input.step.path, far.host, far.port]),
} if {
	input.step.class == "pure"
	some far in input.egress
}

deny contains {
	"code": "pure_step_reads_secret",
	"msg": sprintf("the step `%s` is pure, and declares the secret `%s`", [input.step.path, secret]),
} if {
	input.step.class == "pure"
	some secret in input.secrets
}
