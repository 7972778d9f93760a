"""Words that Kubernetes chooses from a list, which its published schemas only describe in prose."""

import re

#: Where such a word stands in a manifest, as a pattern of its JSON path, and what it may be.
ALLOWED = {
    r"^CronJob\.spec\.concurrencyPolicy$": {"Allow", "Forbid", "Replace"},
    r"\.restartPolicy$": {"Always", "OnFailure", "Never"},
    r"\.podReplacementPolicy$": {"TerminatingOrFailed", "Failed"},
    r"\.completionMode$": {"NonIndexed", "Indexed"},
    r"\.podFailurePolicy\.rules\.\d+\.action$": {"FailJob", "FailIndex", "Ignore", "Count"},
    r"\.onExitCodes\.operator$": {"In", "NotIn"},
    r"\.onPodConditions\.\d+\.status$": {"True", "False", "Unknown"},
    r"\.onPodConditions\.\d+\.type$": {"DisruptionTarget"},
    r"\.imagePullPolicy$": {"Always", "IfNotPresent", "Never"},
    r"\.(ports|egress|ingress)(\.\d+\.ports)?\.\d+\.protocol$": {"TCP", "UDP", "SCTP"},
    r"\.policyTypes\.\d+$": {"Ingress", "Egress"},
    r"\.accessModes\.\d+$": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    r"\.fsGroupChangePolicy$": {"OnRootMismatch", "Always"},
    r"\.seccompProfile\.type$": {"RuntimeDefault", "Localhost"},
    r"^Service\.spec\.type$": {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"},
    r"\.internalTrafficPolicy$": {"Cluster", "Local"},
    r"\.sessionAffinity$": {"None", "ClientIP"},
    r"^Deployment\.spec\.strategy\.type$": {"RollingUpdate", "Recreate"},
    r"\.whenUnsatisfiable$": {"DoNotSchedule", "ScheduleAnyway"},
    r"\.(nodeAffinityPolicy|nodeTaintsPolicy)$": {"Honor", "Ignore"},
    r"\.tolerations\.\d+\.operator$": {"Exists", "Equal"},
    r"\.tolerations\.\d+\.effect$": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    r"\.matchExpressions\.\d+\.operator$": {"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"},
    r"\.matchFields\.\d+\.operator$": {"In", "NotIn"},
    r"\.pathType$": {"Exact", "Prefix", "ImplementationSpecific"},
    r"\.unhealthyPodEvictionPolicy$": {"IfHealthyBudget", "AlwaysAllow"},
    r"\.httpGet\.scheme$": {"HTTP", "HTTPS"},
    r"^HorizontalPodAutoscaler\.spec\.metrics\.\d+\.type$": {"Resource", "ContainerResource", "Pods", "Object", "External"},
    r"^HorizontalPodAutoscaler\..*\.target\.type$": {"Utilization", "Value", "AverageValue"},
    r"\.selectPolicy$": {"Max", "Min", "Disabled"},
    r"\.behavior\.\w+\.policies\.\d+\.type$": {"Pods", "Percent"},
    r"\.volumeMode$": {"Filesystem", "Block"},
    r"\.emptyDir\.medium$": {"", "Memory"},
    r"\.hostPath\.type$": {"", "DirectoryOrCreate", "Directory", "File"},
    r"\.dnsPolicy$": {"ClusterFirst", "Default", "None", "ClusterFirstWithHostNet"},
    r"\.preemptionPolicy$": {"Never", "PreemptLowerPriority"},
    r"^RoleBinding\.roleRef\.kind$": {"Role", "ClusterRole"},
    r"^RoleBinding\.subjects\.\d+\.kind$": {"ServiceAccount", "User", "Group"},
    r"^Role\.rules\.\d+\.verbs\.\d+$": {"get", "list", "watch", "create", "update", "patch", "delete"},
    r"^(PodMonitor|ServiceMonitor)\..*relabelings\.\d+\.action$": {
        "replace",
        "keep",
        "drop",
        "labelmap",
        "labeldrop",
        "labelkeep",
    },
    r"^Certificate\.spec\.privateKey\.algorithm$": {"RSA", "ECDSA", "Ed25519"},
    r"^Certificate\.spec\.privateKey\.encoding$": {"PKCS1", "PKCS8"},
    r"^Certificate\.spec\.privateKey\.rotationPolicy$": {"Never", "Always"},
    r"^Certificate\.spec\.usages\.\d+$": {"server auth", "client auth", "digital signature", "key encipherment"},
    r"^Certificate\.spec\.issuerRef\.kind$": {"Issuer", "ClusterIssuer"},
    r"^\w+\.metadata\.annotations\.helm\.sh/resource-policy$": {"keep"},
}
HOOKS = {
    "helm.sh/hook": {
        "test", "pre-install", "post-install", "pre-upgrade", "post-upgrade", "pre-delete", "post-delete", "pre-rollback",
        "post-rollback",
    },
    "helm.sh/hook-delete-policy": {"before-hook-creation", "hook-succeeded", "hook-failed"},
}  # fmt: skip
#: Keys whose last part says that one of a list stands there; each must be covered by a pattern above.
_CHOSEN = re.compile(
    r"\.(\w*[pP]olicy|operator|effect|action|protocol|scheme|pathType|policyTypes\.\d+|accessModes\.\d+|whenUnsatisfiable|medium"
    r"|volumeMode|selectPolicy|verbs\.\d+)$"
)
_NOT_WORDS = re.compile(r"\.(securityPolicy|podFailurePolicy)$")


def wrong_words(manifest):
    """Words that are not on Kubernetes' list, or stand where no list is known: path and word in one text each."""
    wrong = []
    for path, word in leaves(manifest):
        where = ".".join([manifest["kind"], *map(str, path)])
        lists = [words for pattern, words in ALLOWED.items() if re.search(pattern, where)]
        if any(word not in words for words in lists):
            wrong.append(f"{where}: {word!r}")
        if not lists and _CHOSEN.search(where) and not _NOT_WORDS.search(where):
            wrong.append(f"{where}: {word!r} (no list of what may stand here)")
    for annotation, words in HOOKS.items():
        chosen = (manifest["metadata"].get("annotations") or {}).get(annotation)
        if chosen is not None and not {word.strip() for word in chosen.split(",")} <= words:
            wrong.append(f"{manifest['kind']}: {annotation}: {chosen!r}")
    return wrong


def leaves(value, path=()):
    """Path and value of everything in a manifest that is neither a map nor a list."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    else:
        return [(path, value)]
    return [leaf for key, part in parts for leaf in leaves(part, (*path, key))]
