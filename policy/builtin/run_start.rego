# What may start.
package maestro.run_start.builtin

# The author of a change from a fork is somebody whom nobody here has vouched for.
deny contains {
	"code": "fork_in_production",
	"msg": sprintf("change %d comes from a fork, and `%s` is production", [input.trigger.number, input.environment.name]),
} if {
	input.trigger.kind == "pull_request"
	input.trigger.from_fork
	input.environment.tier == "production"
}
