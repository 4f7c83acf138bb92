"""`etnet doctor`: what is installed, what works, what is missing and the command that installs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from etnet.cli.console import counted, output

if TYPE_CHECKING:
    from etnet.environment.diagnosis import Ability, Diagnosis, Driver, Finding, NativeModule
    from etnet.environment.hardware import Machine, ResultsFolder
    from etnet.environment.packages import Package

RUNS = Path("runs")
STYLES = {"ok": "green", "missing": "dim", "too old": "yellow", "broken": "bold red", "no GPU": "dim"}
EXIT_BROKEN = 4  # that of EnvironmentFault


@click.command("doctor", short_help="Show what is installed, what works and what is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON to stdout, and nothing else there.")
def command(as_json: bool) -> None:
    """Show what is installed, what works, what is missing and the command that installs it.

    Every package is imported once in a second process, so this takes as long as importing PyTorch; nothing is
    downloaded or changed.

    Exit code 0: what is installed works, whether or not more could be added. 4: something is broken: a package that is
    installed but too old or not importable, a package that every command needs, the native module, or a current folder
    that cannot be written.
    """
    from etnet.environment.diagnosis import diagnose
    from etnet.output import json_text

    diagnosis = diagnose(RUNS)
    if as_json:
        click.echo(json_text(diagnosis.as_dict()))
    else:
        print_diagnosis(diagnosis)
    if diagnosis.faults:
        raise click.exceptions.Exit(EXIT_BROKEN)


def print_diagnosis(found: Diagnosis) -> None:
    """Print all findings, the verdict last, where the eye is when the command ends."""
    from etnet.environment.packages import PURPOSES

    console = output()
    _section(console, f"etnet {found.etnet_version}", _program_rows(found))
    _section(console, "Machine", [*_machine_rows(found.machine, found.results), *_gpu_rows(found.driver)])
    _section(console, "Native module", _native_rows(found.native_module))
    for group in dict.fromkeys(package.group for package in found.packages):
        members = [package for package in found.packages if package.group == group]
        _print_packages(console, group, PURPOSES.get(group, ""), members)
    _print_findings(console, "Broken", found.faults, "bold red")
    _print_findings(console, "Could be added", found.hints, "bold")
    _print_verdict(console, found)


def _section(console: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2), expand=False)
    table.add_column(min_width=16)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(f"  {name}"), Text(value))
    console.print(Text(title, style="bold"))
    console.print(table)
    console.print()


def _program_rows(found: Diagnosis) -> list[tuple[str, str]]:
    return [("installed in", found.etnet_path), ("Python", f"{found.python}, {found.executable}")]


def _machine_rows(machine: Machine, results: ResultsFolder) -> list[tuple[str, str]]:
    cores = counted(machine.cores, "core")
    if machine.usable_cores != machine.cores:
        cores = f"{machine.usable_cores} of {cores}"
    available = f", {_size(machine.available_memory_bytes)} available" if machine.available_memory_bytes else ""
    access = "can be written" if results.writable else "CANNOT BE WRITTEN"
    return [
        ("system", machine.platform),
        ("processor", f"{machine.processor}, {cores}"),
        ("memory", f"{_size(machine.memory_bytes)}{available}"),
        ("results", f"{results.path} {access}, {_size(results.free_bytes)} free"),
    ]


def _gpu_rows(driver: Driver) -> list[tuple[str, str]]:
    rows = []
    if driver.version or driver.cuda:
        rows.append(("NVIDIA driver", f"{driver.version or 'version unknown'}, CUDA up to {driver.cuda or 'unknown'}"))
    if not driver.gpus:
        return [*rows, ("GPU", f"none: {driver.reason}")]
    for index, gpu in enumerate(driver.gpus):
        kernels = "native kernels run on it" if gpu.native_kernels else "no native kernels for it"
        details = f"compute capability {gpu.compute_capability}, {_size(gpu.memory_bytes)}, {kernels}"
        rows.append((f"GPU {index}", f"{gpu.name}, {details}"))
    return rows


def _native_rows(native_module: NativeModule) -> list[tuple[str, str]]:
    if not native_module.usable:
        return [("state", f"NOT USABLE: {native_module.reason}")]
    cuda = "not built in"
    if native_module.cuda:
        cuda = f"nvcc {native_module.cuda} for compute capabilities {native_module.cuda_targets} (the last also as PTX)"
    state = f"ok, interface {native_module.interface}"
    return [
        ("state", state),
        ("file", native_module.path or "unknown"),
        ("C++ compiler", native_module.compiler),
        ("CUDA kernels", cuda),
    ]


def _print_packages(console: Console, group: str, purpose: str, packages: Sequence[Package]) -> None:
    title = Text.assemble((group, "bold"), f"  {purpose}" if purpose else "")
    table = Table.grid(padding=(0, 2), expand=False)
    table.add_column(min_width=26)
    for _ in ("version", "needs", "state"):
        table.add_column(min_width=8)
    for package in packages:
        state = Text(package.state, STYLES[package.state])
        # Whole words, so that the table says the same without colours.
        table.add_row(f"  {package.name}", package.version or "-", package.requirement, state)
    console.print(title)
    console.print(table)
    console.print()


def _print_findings(console: Console, title: str, findings: Sequence[Finding], style: str) -> None:
    if not findings:
        return
    console.print(Text(title, style))
    for finding in findings:
        # Unwrapped: the second line is made to be copied.
        console.print(Text(f"  {finding.what}"), soft_wrap=True)
        if finding.remedy:
            console.print(Text(f"    {finding.remedy}"), soft_wrap=True)
    console.print()


def _print_verdict(console: Console, found: Diagnosis) -> None:
    console.print(Text.assemble(("Can train:  ", "bold"), _verdict(found.training)), soft_wrap=True)
    runs = [f"{ability.name} on the {ability.note}" for ability in found.backends if ability.possible]
    console.print(Text.assemble(("Can run:    ", "bold"), ", ".join(runs) or "nothing"), soft_wrap=True)
    for ability in found.backends:
        if not ability.possible:
            console.print(Text.assemble(("Cannot run: ", "bold"), f"{ability.name}: {ability.note}"), soft_wrap=True)
    broken = counted(len(found.faults), "thing") + (" are" if len(found.faults) > 1 else " is")
    state = Text(f"{broken} broken, see above", "bold red") if found.faults else Text("all that is installed works")
    console.print(Text.assemble(("Verdict:    ", "bold"), state), soft_wrap=True)


def _verdict(ability: Ability) -> str:
    return f"yes, on the {ability.note}" if ability.possible else f"no: {ability.note}"


def _size(number: int | None) -> str:
    return "unknown" if number is None else f"{number / 1e9:.1f} GB"
