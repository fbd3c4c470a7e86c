# Steps talk to listed hosts only.
#
# `data.egress.hosts` lists names; `*` stands for one label, `**` for several.
# `data.egress.ports` lists ports.
package maestro.step_start.egress_allowlist

deny contains {
	"code": "host_not_listed",
	"msg": sprintf("`%s` may not talk to %s, which is not in `data.egress.hosts`", [input.step.path, far.host]),
} if {
	some far in input.egress
	not is_listed(far.host)
}

deny contains {
	"code": "port_not_listed",
	"msg": sprintf("`%s` may not use port %d of %s", [input.step.path, far.port, far.host]),
} if {
	some far in input.egress
	not far.port in data.egress.ports
}

is_listed(host) if {
	some pattern in data.egress.hosts
	glob.match(pattern, ["."], lower(host))
}
