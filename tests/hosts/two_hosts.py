"""Two hosts on one machine: network namespaces joined by a link, each with a name and a temporary folder of its own.

What runs in them shares nothing but the disk: MPI takes them for two machines, and the link between them can be
slowed and cut. Needs root, and ip and tc of iproute2.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from dtrain.launcher.mpirun import find_mpirun

HOST_NAMES = ("hosta", "hostb")
ADDRESSES = ("10.77.0.1", "10.77.0.2")

# How often a packet is sent again before its connection is given up: for 25 s. By default Linux takes a quarter of an
# hour, and mpirun, which is waiting for its daemon beyond a link that was cut, as long.
NUM_RETRIES = 6
_RETRIES = "/proc/sys/net/ipv4/tcp_retries2"

_TOOLS = ("ip", "tc", "unshare", "hostname")
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))

# What mpirun starts its daemon on another host with, in place of ssh: AGENT ADDRESS WORDS…, the words for a shell.
_AGENT = """#!/bin/sh
address=$1
shift
case $address in
{cases}
*) echo "no host has the address $address" >&2; exit 1;;
esac
"""


class TwoHosts:
    """Two hosts for a with block, with files in `folder`; nothing is left of them behind it.

    Raises OSError or CalledProcessError where they can't be made; see `why_not`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._namespaces = [f"dtrain-{os.getpid()}-{name}" for name in HOST_NAMES]
        self._links = [f"dt{os.getpid() % 10**8}{name[-1]}" for name in HOST_NAMES]  # at most 15 characters
        self._agent = folder / "agent"

    def __enter__(self) -> Self:
        try:
            for namespace in self._namespaces:
                _tool("ip", "netns", "add", namespace)
            first, second = zip(self._links, self._namespaces, strict=True)
            ends = ["dev", first[0], "netns", first[1], "type", "veth", "peer", second[0], "netns", second[1]]
            _tool("ip", "link", "add", *ends)
            for namespace, link, address in zip(self._namespaces, self._links, ADDRESSES, strict=True):
                _tool("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", link)
                _tool("ip", "-n", namespace, "link", "set", "lo", "up")
                _tool("ip", "netns", "exec", namespace, "sh", "-c", f"echo {NUM_RETRIES} > {_RETRIES}")
            self.mend()
            self._write_agent()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def mpirun(self, num_on: Sequence[int], args: Sequence[str]) -> list[str]:
        """Return the command that runs `args` on num_on[i] ranks of host i, those of host 0 first."""
        command = [*self._inside(0), find_mpirun(), "--prtemca", "plm_ssh_agent", str(self._agent)]
        separator: list[str] = []
        for num, address in zip(num_on, ADDRESSES, strict=True):
            if num:
                command += [*separator, "-n", str(num), "--host", f"{address}:{num}", *args]
                separator = [":"]
        return command

    def slow(self, rate: str) -> None:
        """Let the link carry at most `rate` in each direction, as tc writes it: "200mbit"."""
        for namespace, link in zip(self._namespaces, self._links, strict=True):
            limit = ["tbf", "rate", rate, "burst", "256kb", "latency", "100ms"]
            _tool("tc", "-n", namespace, "qdisc", "replace", "dev", link, "root", *limit)

    def unslow(self) -> None:
        """Let the link carry what it can."""
        for namespace, link in zip(self._namespaces, self._links, strict=True):
            subprocess.run(
                [_find("tc"), "-n", namespace, "qdisc", "delete", "dev", link, "root"],
                check=False,  # it may not have been slowed
                capture_output=True,
            )

    def cut_command(self) -> list[str]:
        """Return the command that cuts the link, for a process on either host or on none."""
        return [_find("ip"), "-n", self._namespaces[1], "link", "set", self._links[1], "down"]

    def mend(self) -> None:
        """Let the link be up."""
        for namespace, link in zip(self._namespaces, self._links, strict=True):
            _tool("ip", "-n", namespace, "link", "set", link, "up")

    def processes(self) -> list[int]:
        """Return the processes that run on the hosts."""
        return [
            int(number) for name in self._namespaces for number in _tool("ip", "netns", "pids", name).split()
        ]

    def _inside(self, host: int) -> list[str]:
        """Return what to put in front of a command for it to run on a host."""
        name, temporary = HOST_NAMES[host], self.folder / HOST_NAMES[host]
        temporary.mkdir(exist_ok=True)
        words = f'hostname {name}; export TMPDIR={shlex.quote(str(temporary))}; exec "$@"'
        namespace = ["netns", "exec", self._namespaces[host]]
        return [_find("ip"), *namespace, _find("unshare"), "--uts", "sh", "-c", words, "sh"]

    def _write_agent(self) -> None:
        cases = "\n".join(
            f'{address}) exec {shlex.join(self._inside(host))} sh -c "$*";;'
            for host, address in enumerate(ADDRESSES)
        )
        self._agent.write_text(_AGENT.format(cases=cases))
        self._agent.chmod(0o755)

    def _remove(self) -> None:
        """End what still runs on the hosts, and remove them with their link."""
        for namespace in self._namespaces:
            pids = subprocess.run([_find("ip"), "netns", "pids", namespace], capture_output=True, text=True)
            for number in pids.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(number), signal.SIGKILL)
            subprocess.run([_find("ip"), "netns", "delete", namespace], capture_output=True)


def why_not() -> str:
    """Return why there can be no two hosts here; nothing if there can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=_PATH) is None]
    if missing:
        return f"two hosts on one machine need {', '.join(missing)}"
    probe = f"dtrain-{os.getpid()}-probe"
    try:
        _tool("ip", "netns", "add", probe)
        _tool("ip", "netns", "exec", probe, _find("unshare"), "--uts", "hostname", "probe")
        ends = ["type", "veth", "peer", "dtprobeb"]
        _tool("ip", "-n", probe, "link", "add", "dtprobea", *ends)
        _tool("tc", "-n", probe, "qdisc", "add", "dev", "dtprobea", "root", "tbf", *_PROBE_LIMIT)
    except subprocess.CalledProcessError as error:
        return f"two hosts on one machine can't be made: {error.stderr.strip()}"
    finally:
        subprocess.run([_find("ip"), "netns", "delete", probe], check=False, capture_output=True)
    return ""


_PROBE_LIMIT = ("rate", "1gbit", "burst", "256kb", "latency", "100ms")


def _tool(name: str, *args: str) -> str:
    """Run a tool, which must succeed, and return what it prints."""
    return subprocess.run([_find(name), *args], check=True, capture_output=True, text=True).stdout


def _find(tool: str) -> str:
    return shutil.which(tool, path=_PATH) or tool
