"""The objects of a cluster by kind, namespace and name, and their events in order.

As in a real cluster, an object with finalizers is kept until they are gone, and a deleted object takes with it what it owns.
"""

import copy
import itertools
import threading
from datetime import UTC, datetime


class Objects:
    """Thread-safe; ``changed`` is notified of every event."""

    def __init__(self):
        self.changed = threading.Condition(threading.RLock())
        #: (version, kind, type, object) since the beginning.
        self.events = []
        self._held = {}
        self._versions = itertools.count(1)

    def of_kind(self, kind, namespace=None, selector=None):
        """Copies of those of one kind, of all namespaces or one, whose labels fit."""
        with self.changed:
            found = [held for (of, where, _), held in self._held.items() if of == kind and namespace in (None, where)]
            return copy.deepcopy([one for one in found if fits(one["metadata"].get("labels", {}), selector)])

    def get(self, kind, namespace, name):
        with self.changed:
            return copy.deepcopy(self._held[kind, namespace, name])

    def create(self, kind, namespace, content):
        """Returns it as it is kept; ``ValueError`` where one of that name is there already."""
        with self.changed:
            key = (kind, namespace, content["metadata"]["name"])
            if key in self._held:
                raise ValueError(f"{key} is there already")
            made = copy.deepcopy(content) | {"kind": kind}
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            made["metadata"] |= {"uid": "/".join(filter(None, key)), "creationTimestamp": now, "generation": 1}
            if namespace is not None:
                made["metadata"]["namespace"] = namespace
            return self._keep(key, made, "ADDED")

    def patch(self, kind, namespace, name, change):
        """Change an object by a function of it."""
        with self.changed:
            key = (kind, namespace, name)
            before = self._held[key]
            after = change(copy.deepcopy(before))
            if after != before:
                after["metadata"]["generation"] += after.get("spec") != before.get("spec")
                self._keep(key, after, "MODIFIED")
            return self._end_if_marked(key)

    def delete(self, kind, namespace, name):
        with self.changed:
            key = (kind, namespace, name)
            marked = copy.deepcopy(self._held[key])
            marked["metadata"].setdefault("deletionTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
            self._keep(key, marked, "MODIFIED")
            return self._end_if_marked(key)

    def _end_if_marked(self, key):
        held = self._held[key]
        if "deletionTimestamp" in held["metadata"] and not held["metadata"].get("finalizers"):
            self._keep(key, held, "DELETED")
            del self._held[key]
            for kind, namespace, name in [other for other, one in self._held.items() if owned(one, held["metadata"]["uid"])]:
                self.delete(kind, namespace, name)
        return copy.deepcopy(held)

    def _keep(self, key, content, happened):
        content["metadata"]["resourceVersion"] = str(version := next(self._versions))
        self._held[key] = content
        self.events.append((version, key[0], happened, copy.deepcopy(content)))
        self.changed.notify_all()
        return copy.deepcopy(content)


def owned(content, uid):
    """Whether an object belongs to that of the id."""
    return any(owner["uid"] == uid for owner in content["metadata"].get("ownerReferences", []))


def fits(labels, selector):
    """Whether labels fit a selector ``a=b,c``."""
    for term in filter(None, (selector or "").split(",")):
        name, equals, value = term.replace("==", "=").partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True


def merged(target, change):
    """A JSON merge patch (RFC 7386), applied."""
    if not isinstance(change, dict):
        return change
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def edited(target, operations):
    """A JSON patch (RFC 6902) of the operations that clients use, applied; ``ValueError`` where its test does not hold."""
    for operation in operations:
        *path, last = [word.replace("~1", "/").replace("~0", "~") for word in operation["path"].split("/")[1:]]
        holder = target
        for word in path:
            holder = holder[int(word) if isinstance(holder, list) else word]
        where = last if isinstance(holder, dict) or last == "-" else int(last)
        match operation["op"]:
            case "test":
                if (holder[where] if isinstance(holder, list) else holder.get(where)) != operation["value"]:
                    raise ValueError(f"{operation['path']} is not {operation['value']}")
            case "remove":
                del holder[where]
            case "add" if isinstance(holder, list):
                holder.insert(len(holder) if where == "-" else where, operation["value"])
            case "add" | "replace":
                holder[where] = operation["value"]
    return target
