# A release: two people, and a list of evidence.
#
# `data.release.approvals` is how many distinct people approve, `data.release.evidence` which kinds
# of documents have to be there, about every artifact. Nothing is taken to be there because nobody
# says that it is missing.
package maestro.effect.release

import data.release

default allow := false

# What is not published is no release.
allow if input.effect.publishes == false

allow if {
	input.effect.publishes
	count(input.artifacts) > 0
	count(deny) == 0
}

deny contains {
	"code": "approvals_missing",
	"approvals": release.approvals,
	"msg": sprintf("a release needs %d people who approve, %d did", [release.approvals, count(approvers)]),
} if {
	input.effect.publishes
	count(approvers) < release.approvals
}

deny contains {
	"code": "evidence_missing",
	"msg": sprintf("`%s` has no %s", [artifact.name, kind]),
} if {
	input.effect.publishes
	some artifact in input.artifacts
	some kind in release.evidence
	not is_known(artifact, kind)
}

deny contains {
	"code": "unsigned",
	"msg": sprintf("`%s` is %s", [artifact.name, artifact.signature.state]),
} if {
	input.effect.publishes
	some artifact in input.artifacts
	artifact.signature.state != "signed"
}

deny contains {"code": "nothing_released", "msg": "there is no artifact to release"} if {
	input.effect.publishes
	count(input.artifacts) == 0
}

approvers contains approval.principal.id if {
	some approval in input.approvals
	approval.state == "granted"
	approval.principal.id != input.initiator.id
}

# A document with a digest, about this very artifact.
is_known(artifact, kind) if {
	some document in input.evidence
	document.kind == kind
	document.subject == artifact.digest
	startswith(document.digest, "sha256:")
}
