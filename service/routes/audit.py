"""The audit log: who did what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.access_views import AuditList, AuditView
from service.deps import AuditDep, CursorDep, PrincipalDep

router = APIRouter(prefix="/audit", tags=["access"])


@router.get("")
def list_audit(
    audit: AuditDep,
    principal: PrincipalDep,
    token: Annotated[str | None, Query(max_length=40, description="id of a token")] = None,
    object: Annotated[str | None, Query(max_length=300, description="path, such as /v1/jobs/j0123")] = None,
    project: Annotated[str | None, Query(max_length=40, description="left out: all that the token may see")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: CursorDep = None,
) -> AuditList:
    """Newest first; an admin of another project than the default one sees what its project's tokens did."""
    seen = project if principal.runs_installation else principal.project_id
    if project is not None and project != seen:
        return AuditList(items=[], next_cursor=None)
    page = audit.page(project_id=seen, token_id=token, path=object, limit=limit, cursor=cursor)
    return AuditList(items=[AuditView.of(row) for row in page.rows], next_cursor=page.next_cursor)
