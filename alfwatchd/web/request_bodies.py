"""The JSON bodies of requests to the control API."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from alfwatchd.settings import Fraction


class RescanBody(BaseModel):
    """What to scan again."""

    model_config = ConfigDict(extra="forbid", strict=True)
    path: str = Field("", max_length=4096, description="Folder relative to the root; empty for all of it.")
    accept_root: bool = Field(
        default=False, description="Accept the current root even if it is a different disk or folder than last time."
    )


class SetBody(BaseModel):
    """Which columns to set; null leaves a column as it is."""

    model_config = ConfigDict(extra="forbid", strict=True)
    session: str = Field(
        max_length=4096,
        description="Path of a session, relative to the root, or its eid. A rel_path behind the path means one "
        "dataset, or those in one folder.",
    )
    qc: str | None = Field(
        None, max_length=16, description="NOT_SET, PASS, WARNING, FAIL or CRITICAL: of its datasets."
    )
    projects: str | None = Field(None, max_length=4096, description="Names with commas between them.")
    task_protocol: str | None = Field(None, max_length=4096, description="Of the session.")


class PlanBody(BaseModel):
    """What a prune compares the root with, and its limits."""

    model_config = ConfigDict(extra="forbid", strict=True)
    reference: str | None = Field(
        None, max_length=4096, description="Folder of the reference tables: an absolute path, as the daemon sees it."
    )
    keep_empty_sessions: bool = Field(default=False, description="Delete files only, no folders.")
    max_fraction: Fraction | None = Field(
        None, description="Largest fraction of datasets, and of bytes, that a prune may delete."
    )
    newer: bool = Field(default=False, description="Whether to delete files that are newer than the reference, too.")


class ApplyBody(BaseModel):
    """Which plan to carry out."""

    model_config = ConfigDict(extra="forbid", strict=True)
    plan_id: str = Field(
        max_length=64,
        description="As in the plan. The daemon keeps the last eight plans, and fewer where they are large.",
    )


class UndoBody(BaseModel):
    """Which plan to undo."""

    model_config = ConfigDict(extra="forbid", strict=True)
    plan_id: str = Field(max_length=64, description="Id of a plan whose files are in the trash.")


class EmptyBody(BaseModel):
    """What to delete from the trash."""

    model_config = ConfigDict(extra="forbid", strict=True)
    plan_id: str | None = Field(None, max_length=64, description="Id of a plan; null for the whole trash.")
