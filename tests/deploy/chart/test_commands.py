"""What containers are told, read by the program they run: no flag that it does not know, no setting that it refuses."""

import re
import tomllib

import click
import pytest
from manifests.pods import at, of_kind, pods

from scanner import config
from scanner.cli.main import scanner
from scanner.errors import UsageError
from scanner.interface.scan import RunSettings, full_names
from scanner.service import settings
from scanner.sky import tile_list

#: What Kubernetes knows only when the pod runs; any address and name do.
FIELDS = {"status.podIP": "10.0.0.7", "metadata.name": "the-pod", "metadata.namespace": "lenses", "spec.nodeName": "node-1"}


def environment(container):
    """Its variables, as far as the manifests say what they hold."""
    # The Dask operator adds it to those of its workers.
    variables = {"DASK_WORKER_NAME": "worker-1"}
    for variable in container.get("env", []):
        value = variable.get("value")
        if value is None:
            value = FIELDS.get(at(variable, ("valueFrom", "fieldRef", "fieldPath"), ""), "from-elsewhere")
        variables[variable["name"]] = expanded(value, variables)
    return variables


def expanded(text, variables):
    """``$(NAME)`` as the kubelet replaces it."""
    return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), text)


def command_lines(pod):
    """Every call of ``scanner`` in a pod: the container, its words; the image's own entry point is ``tini -- scanner``."""
    for container in pod.containers:
        variables = environment(container)
        if "command" not in container:
            yield container, [expanded(word, variables) for word in container["args"]]
            continue
        words = [*container["command"], *container.get("args", [])]
        assert words[:2] == ["tini", "--"], (pod.name, words)
        if words[2] == "scanner":
            yield container, [expanded(word, variables) for word in words[3:]]


def parsed(words):
    """The verb's parameters, as click reads them; what it does not take raises ``click.ClickException``."""
    with scanner.make_context("scanner", list(words)) as context:
        command, rest = scanner, [*context._protected_args, *context.args]
        while isinstance(command, click.Group):
            name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)
            rest = [*context._protected_args, *context.args]
        return context.command_path.split()[1:], context.params


def test_every_container_is_told_what_scanner_understands(manifests):
    for pod in pods(manifests):
        for _, words in command_lines(pod):
            assert not any("$(" in word for word in words), (pod.name, words)
            parsed(words)


def test_words_that_scanner_does_not_know_are_refused():
    with pytest.raises(click.NoSuchOption):
        parsed(["run", "tiles.txt", "--lisen=tcp://0.0.0.0:8786"])
    with pytest.raises(UsageError):
        parsed(["runn"])


def mounted_text(manifests, pod, container, path):
    """What a container finds in a file that a ConfigMap brings, or None."""
    for mount in container.get("volumeMounts", []):
        if path.startswith(f"{mount['mountPath']}/"):
            volume = next(volume for volume in pod.spec["volumes"] if volume["name"] == mount["name"])
            name = at(volume, ("configMap", "name"))
            made = of_kind(manifests, "ConfigMap").get(name)
            return made and made["data"][path.removeprefix(f"{mount['mountPath']}/")]
    return None


def test_settings_of_scans_are_settings(manifests, tmp_path):
    """The TOML that values became, the environment and the flags together make a configuration that a run takes."""
    for pod in pods(manifests):
        for container, words in command_lines(pod):
            verb, given = parsed(words)
            if verb != ["run"]:
                continue
            file = None
            if given["config_file"] is not None:
                file = tmp_path / "scanner.toml"
                file.write_text(mounted_text(manifests, pod, container, str(given["config_file"])))
            flags = {name: given[name] for name in RunSettings.__annotations__ if given[name] not in (None, False)}
            loaded = config.load(file, full_names(flags), environment(container))
            assert loaded.engine.listen is None or loaded.engine.scheduler is None, pod.name


def test_tile_lists_in_values_are_tile_lists(manifests):
    for pod in pods(manifests):
        for container, words in command_lines(pod):
            verb, given = parsed(words)
            text = mounted_text(manifests, pod, container, given["tiles"][0]) if verb == ["run"] else None
            if text is not None:
                lines = [tile_list.read_line(line, "/data", "tiles.txt") for line in text.splitlines()]
                assert any(line is not None for line in lines), pod.name


def test_settings_of_the_service_are_settings(manifests, tmp_path):
    for pod in pods(manifests):
        for container, words in command_lines(pod):
            verb, given = parsed(words)
            if verb != ["serve"]:
                continue
            file = None
            if given["config_file"] is not None:
                file = tmp_path / "service.toml"
                file.write_text(mounted_text(manifests, pod, container, str(given["config_file"])))
                assert tomllib.loads(file.read_text())
            loaded = settings.load(file, {}, environment(container))
            assert loaded.http.host == "0.0.0.0" or given["host"] == "0.0.0.0", "nobody else reaches a pod's loopback"


def test_ports_that_are_told_are_ports_that_are_declared(manifests):
    """What the process listens at is what Services, probes and policies know by name."""
    for pod in pods(manifests):
        for container, words in command_lines(pod):
            verb, given = parsed(words)
            declared = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            told = {
                "metrics": given.get("metrics_port"),
                "worker": given.get("worker_port"),
                "http": given.get("port") if verb == ["serve"] else None,
                "dask": int(given["listen"].rpartition(":")[2]) if given.get("listen") else None,
            }
            for name, port in told.items():
                if port is not None and pod.kind != "DaskCluster":
                    assert declared.get(name) == port, (pod.name, name)
