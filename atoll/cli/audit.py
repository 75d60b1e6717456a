"""`atoll audit`: what an attacker would learn from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.output import Format, FormatOption, emit, note
from atoll.cli.process import load_torch
from atoll.errors import PrivacyError

__all__ = ["audit"]


def audit(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    data: Annotated[
        Path | None, typer.Option("--data", help="Where the run's rows are, if they were moved.")
    ] = None,
    output_format: FormatOption = Format.text,
) -> None:
    """Try attacks on a finished run: what a server sees, what the model remembers.

    RUN is a run directory; its rows are read from where its experiment file says, or from --data.
    What was found is written to audit.json in it, and stands in its report. A promise of privacy
    that does not hold ends it with exit code 10.
    """
    load_torch()
    from atoll.audit.audited import audited, written
    from atoll.report.write import try_report
    from atoll.trained.load_run import load_run

    trained = load_run(run, note=note, with_data=True, moved=data)
    findings = audited(trained, say=note)
    written(trained, findings)
    try_report(run, note=note)
    if output_format is Format.json:
        from dataclasses import asdict

        emit(asdict(findings))
    else:
        from atoll.cli.audit_text import show_audit

        show_audit(run)
    if findings.refuted:
        raise PrivacyError(
            f"the promise of {run} does not hold: epsilon {findings.epsilon:g} is claimed, and "
            f"{'; '.join(findings.refuted)}; do not publish the model under that promise"
        )
