"""A Hub on the loopback interface: the routes that huggingface_hub uses to make, fill, describe and read a repository.

Files of data sets (`datasets/...`) are read too. It keeps commits and branches in memory, knows one token, and answers
as the real one where something is missing or not allowed. All files travel within the commit, where the real one has
another way for large ones.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_right"


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Add files to a branch; the sha of the commit."""
        whole = self.commits.get(self.branches.get(branch, ""), {}) | files
        sha = hashlib.sha1(repr((len(self.commits), sorted(whole))).encode()).hexdigest()
        self.commits[sha] = whole
        self.branches[branch] = sha
        return sha


@dataclass
class StandInHub:
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def put(self, name: str, **files: bytes) -> Repository:
        """A repository with files in it, as another program would have made it."""
        repository = self.repositories.setdefault(name, Repository())
        repository.commit("main", files)
        return repository


class Handler(BaseHTTPRequestHandler):
    hub: StandInHub

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        for method, pattern, route in ROUTES:
            if (self.command == method or (method, self.command) == ("GET", "HEAD")) and (
                match := re.fullmatch(pattern, path)
            ):
                return route(self, match, body)
        return self.say(404, {"error": "no such route"})

    do_GET = do_HEAD = do_POST = answer

    def say(self, status: int, content: Any = None, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def knows_me(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, name: str, *, write: bool = False) -> Repository | None:
        """The repository where it may be seen; else answers as the Hub does, which tells no one what is private."""
        found = self.hub.repositories.get(name)
        if found is None or ((found.private or write) and not self.knows_me):
            self.say(401 if not self.knows_me else 404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        return found

    def create(self, _: re.Match[str], body: bytes) -> None:
        if not self.knows_me:
            return self.say(401, {"error": "Invalid username or password."})
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'user'}/{asked['name']}"
        if asked.get("organization") == "others":
            return self.say(403, {"error": "You don't have the rights to create a model under this namespace"})
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            return self.say(409, {"error": "You already created this model repo", "url": url})
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        made = self.hub.repositories[name] = Repository(private)
        made.commit("main", {".gitattributes": b"*.safetensors filter=lfs"})
        return self.say(200, {"url": url})

    def validate(self, _: re.Match[str], body: bytes) -> None:
        header = json.loads(body)["content"].split("---")[1]
        assert all(re.match(r"[a-z_]+: \S", line) for line in header.strip().splitlines())
        self.say(200, {"errors": [], "warnings": []})

    def describe(self, match: re.Match[str], _: bytes) -> None:
        if (found := self.repository(match[1])) is None:
            return
        revision = match[2] or "main"
        sha = found.branches.get(revision, revision)
        if sha not in found.commits:
            return self.say(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        files = [{"rfilename": name} for name in sorted(found.commits[sha])]
        return self.say(200, {"id": match[1], "sha": sha, "private": found.private, "siblings": files})

    def resolve(self, match: re.Match[str], _: bytes) -> None:
        if (found := self.repository(match[1])) is None:
            return
        sha = found.branches.get(match[2], match[2])
        if sha not in found.commits:
            return self.say(404, b"", X_Error_Code="RevisionNotFound")
        content = found.commits[sha].get(match[3])
        if content is None:
            return self.say(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        return self.say(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=sha)

    def branch(self, match: re.Match[str], _: bytes) -> None:
        if (found := self.repository(match[1], write=True)) is None:
            return
        if match[2] in found.branches:
            return self.say(409, {"error": "Reference already exists"})
        found.branches[match[2]] = found.branches["main"]
        return self.say(200, {})

    def preupload(self, match: re.Match[str], body: bytes) -> None:
        if self.repository(match[1], write=True) is None:
            return
        names = [file["path"] for file in json.loads(body)["files"]]
        files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
        self.say(200, {"files": files})

    def commit(self, match: re.Match[str], body: bytes) -> None:
        if (found := self.repository(match[1], write=True)) is None:
            return
        files = {}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        sha = found.commit(match[2], files)
        self.say(200, {"commitUrl": f"{self.hub.url}/{match[1]}/commit/{sha}", "commitOid": sha})


_REPO = r"([\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, str, Callable[[Handler, re.Match[str], bytes], None]]] = [
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate),
    ("POST", rf"/api/models/{_REPO}/branch/(.+)", Handler.branch),
    ("POST", rf"/api/models/{_REPO}/preupload/(.+)", Handler.preupload),
    ("POST", rf"/api/models/{_REPO}/commit/(.+)", Handler.commit),
    ("GET", rf"/api/models/{_REPO}(?:/revision/(.+))?", Handler.describe),
    ("GET", rf"/((?:datasets/)?{_REPO[1:-1]})/resolve/([^/]+)/(.+)", Handler.resolve),
]


@contextmanager
def running_hub() -> Iterator[StandInHub]:
    """A stand-in on a free port, for as long as the block runs."""
    hub = StandInHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
