"""Projects: make, list, one with what it holds, delete. Only admins of the default project make and delete them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.access_views import NewProject, ProjectList, ProjectView
from service.auth import operators_only
from service.deps import CursorDep, KeyDep, PrincipalDep, ProjectsDep, StateDep
from service.openapi import LOCATION
from service.refusals import Unknown
from service.tokens import Principal

router = APIRouter(prefix="/projects", tags=["access"])


@router.post("", status_code=201, responses={201: {"headers": LOCATION}})
def create_project(
    new: NewProject, response: Response, projects: ProjectsDep, principal: PrincipalDep, key: KeyDep
) -> ProjectView:
    _only_operators(principal)
    row = projects.create(new.id, name=new.name, once=key.with_body(new.model_dump_json()))
    response.headers["Location"] = f"/v1/projects/{row.id}"
    return ProjectView.of(row)


@router.get("")
def list_projects(
    projects: ProjectsDep,
    principal: PrincipalDep,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: CursorDep = None,
) -> ProjectList:
    """Newest first; an admin of another project than the default one sees only its own."""
    if not principal.runs_installation:
        return ProjectList(items=[ProjectView.of(projects.get(principal.project_id))], next_cursor=None)
    page = projects.page(limit=limit, cursor=cursor)
    return ProjectList(items=[ProjectView.of(row) for row in page.rows], next_cursor=page.next_cursor)


@router.get("/{project_id}")
def get_project(project_id: str, projects: ProjectsDep, principal: PrincipalDep) -> ProjectView:
    if project_id != principal.project_id and not principal.runs_installation:
        raise Unknown("project", project_id)
    return ProjectView.of(projects.get(project_id))


@router.delete("/{project_id}", status_code=204)
def delete_project(project_id: str, projects: ProjectsDep, principal: PrincipalDep, state: StateDep) -> Response:
    """An empty one, with its tokens."""
    _only_operators(principal)
    projects.delete(project_id)
    state.authenticate.forget()
    return Response(status_code=204)


def _only_operators(principal: Principal) -> None:
    if not principal.runs_installation:
        raise operators_only("projects are made and deleted by admins of the default project")
