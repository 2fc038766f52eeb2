"""`bantam token`, `project`, `audit` and `delete`: who may do what, who did what, and what is removed."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

import typer
from rich.text import Text

from service.cli_options import (
    DEFAULT_DATA_DIR,
    REFUSED,
    DataDirOption,
    JsonOption,
    TokenOption,
    UrlOption,
    complain,
    console,
    errors,
    print_answer,
    print_json,
    print_rows,
    service_at,
    short_time,
)
from service.client import Client
from service.client_access import DAY_S

tokens = typer.Typer(help="Tokens that open the service.", no_args_is_help=True)
projects = typer.Typer(help="Projects: tenants that see nothing of each other.", no_args_is_help=True)
ScopeName = Literal["read", "submit", "admin"]


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="Whom or what it is for.")],
    scope: Annotated[ScopeName, typer.Option(help="admin includes submit, submit includes read.")] = "read",
    project: Annotated[str | None, typer.Option(help="Left out: that of the token used.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Time until it ends.")] = 90,
    never_ends: Annotated[bool, typer.Option("--never-ends", help="Instead of --days.")] = False,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Make a token. It is printed this once, alone on standard output."""
    with service_at(url, token, data_dir) as client:
        expires = None if never_ends else days * DAY_S
        made = client.create_token(name, scopes=[scope], project=project, expires_in_s=expires)
    if as_json:
        print_json(made)
        return
    until = "never ends" if made["expires_at"] is None else f"ends {short_time(made['expires_at'])}"
    about = f"token {made['id']} of project {made['project']}: {', '.join(made['scopes'])}; {until}. Keep it now:"
    errors.print(Text(about), soft_wrap=True)
    typer.echo(made["token"])


@tokens.command("list")
def list_tokens(
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """List the tokens, without their secrets."""
    with service_at(url, token, data_dir) as client:
        rows = list(client.tokens())
    columns = {
        "id": lambda t: t["id"],
        "name": lambda t: t["name"],
        "project": lambda t: t["project"],
        "scopes": lambda t: ", ".join(t["scopes"]),
        "ends": lambda t: short_time(t["expires_at"]) or "never",
        "last used": lambda t: short_time(t["last_used_at"]) or "never",
    }
    print_rows(
        rows,
        columns,
        "no tokens but the one in the data folder; make one with: bantam token create NAME",
        as_json=as_json,
    )


@tokens.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(metavar="ID")],
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Revoke a token; from the next request on it opens nothing."""
    with service_at(url, token, data_dir) as client:
        client.revoke_token(token_id)
    console.print(Text(f"token {token_id} is revoked"))


@projects.command("create")
def create_project(
    project: Annotated[str, typer.Argument(metavar="ID", help="A word such as vision: a-z, 0-9 and -.")],
    name: Annotated[str, typer.Option(help="A longer name to show.")] = "",
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Make a project."""
    with service_at(url, token, data_dir) as client:
        made = client.create_project(project, name=name)
    hint = f"bantam token create NAME --project {made['id']} --scope submit"
    print_answer(made, f"project {made['id']} is there; open it with: {hint}", as_json=as_json)


@projects.command("list")
def list_projects(
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """List the projects."""
    with service_at(url, token, data_dir) as client:
        rows = list(client.projects())
    columns = {"id": lambda p: p["id"], "name": lambda p: p["name"], "created": lambda p: short_time(p["created_at"])}
    print_rows(rows, columns, "no projects", as_json=as_json)


@projects.command("delete")
def delete_project(
    project: Annotated[str, typer.Argument(metavar="ID")],
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Delete an empty project and its tokens."""
    with service_at(url, token, data_dir) as client:
        client.delete_project(project)
    console.print(Text(f"project {project} is deleted"))


def audit(
    token_id: Annotated[str | None, typer.Option("--by", metavar="TOKEN", help="Only what this token did.")] = None,
    object: Annotated[str | None, typer.Option(help="Only this object: a path such as /v1/jobs/j0123.")] = None,
    project: Annotated[str | None, typer.Option(help="Only this project.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show who did what, newest first."""
    with service_at(url, token, data_dir) as client:
        rows = list(itertools.islice(client.audit(token=token_id, object=object, project=project), limit))
    columns = {
        "time": lambda r: short_time(r["at"], seconds=True),
        "token": lambda r: f"{r['token_name']} ({r['token']})",
        "project": lambda r: r["project"],
        "what": lambda r: f"{r['method']} {r['object']}",
        "outcome": lambda r: f"{r['outcome']} ({r['status']})",
        "request": lambda r: r["request_id"],
    }
    print_rows(rows, columns, "nothing was changed yet", as_json=as_json)


def delete(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Of models (m…), datasets (d…) and jobs (j…).")],
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Delete models, datasets and jobs. What an unfinished job or a schedule needs is refused."""
    kinds = {"m": Client.delete_model, "d": Client.delete_dataset, "j": Client.delete_job}
    strange = [key for key in ids if key[:1] not in kinds]
    if strange:
        complain(f"{strange[0]}: no id of a model, dataset or job; those begin with m, d or j")
        raise typer.Exit(REFUSED)
    with service_at(url, token, data_dir) as client:
        for key in ids:
            kinds[key[0]](client, key)
            console.print(Text(f"{key} is deleted"))
