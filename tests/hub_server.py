"""A server that answers as the Hugging Face Hub does, over real HTTP: repositories, commits, large files, downloads."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

WRITES, READS = "hf_writes", "hf_reads"  #: tokens


@dataclass
class Repository:
    """What the Hub keeps of a repository."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Hub:
    """The state of the server."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)  #: large files by SHA-256, in no commit yet
    asked: list[str] = field(default_factory=list)
    refuses_commits: bool = False  #: as if the owner had no space left
    stops_at_upload: bool = False  #: an upload of a large file arrives and is never answered
    arrived: Event = field(default_factory=Event)
    ended: Event = field(default_factory=Event)


class Answers(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def answer(self, status: int, content: Any = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_request(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, token = self.path.partition("?")[0], (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in ("", WRITES, READS):
            return self.answer(401, {"error": "Invalid credentials in Authorization header"})
        if self.command in ("POST", "PUT") and token != WRITES and not path.startswith("/upload/"):
            return self.answer(403, {"error": "Forbidden: pass a token with the right to write"})
        for pattern, method in (
            (r"/api/repos/create", self.create),
            (r"/api/validate-yaml", self.validate),
            (r"/api/models/([^/]+/[^/]+)/preupload/main", self.modes),
            (r"/api/models/([^/]+/[^/]+)/commit/main", self.commit),
            (r"/api/models/([^/]+/[^/]+)", self.info),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.batch),
            (r"/upload/(.+)", self.upload),
            (r"/([^/]+/[^/]+/resolve/[^/]+/.+)", self.resolve),
        ):
            found = re.fullmatch(pattern, path)
            if found:
                return method(*found.groups())
        return self.answer(404, {"error": "no such page"})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815

    def repository(self, name: str) -> Repository | None:
        """The repository, if this token may see it."""
        found = self.hub.repositories.get(name)
        return None if found is None or (found.private and not self.headers.get("Authorization")) else found

    def missing(self) -> None:
        self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{name}"}
        if name in self.hub.repositories:
            return self.answer(409, url)
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private=private, files={".gitattributes": b""})
        return self.answer(200, url)

    def validate(self) -> None:
        self.answer(200, {"errors": [], "warnings": [{"message": "there is no license"}]})

    def info(self, name: str) -> None:
        found = self.repository(name)
        if found is None:
            return self.missing()
        siblings = [{"rfilename": file} for file in found.files]
        return self.answer(200, {"id": name, "private": found.private, "sha": "0" * 40, "siblings": siblings})

    def modes(self, name: str) -> None:
        if self.repository(name) is None:
            return self.missing()
        if self.hub.refuses_commits:
            return self.answer(413, {"error": "Storage limit reached"})
        paths = [file["path"] for file in json.loads(self.body)["files"]]
        modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in paths}
        return self.answer(
            200, {"files": [{"path": path, "uploadMode": modes[path], "shouldIgnore": False} for path in paths]}
        )

    def batch(self, _: str) -> None:
        objects = json.loads(self.body)["objects"]
        for each in objects:
            each["actions"] = {"upload": {"href": f"{self.hub.url}/upload/{each['oid']}"}}
        self.answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if self.hub.stops_at_upload:
            self.hub.arrived.set()
            self.hub.ended.wait(300)
            self.close_connection = True
            return
        self.hub.uploads[oid] = self.body
        self.answer(200)

    def commit(self, name: str) -> None:
        found = self.repository(name)
        if found is None:
            return self.missing()
        lines = [json.loads(line) for line in self.body.splitlines()]
        files = dict(found.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        found.files = files
        found.commits.append(lines[0]["value"])
        return self.answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40})

    def resolve(self, path: str) -> None:
        owner, name, _, revision, file = path.split("/", 4)
        found = self.repository(f"{owner}/{name}")
        if found is None:
            return self.missing()
        if revision != "main":
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if file not in found.files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit="0" * 40)
        content = found.files[file]
        return self.answer(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit="0" * 40)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A server on a free port."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("OwnAnswers", (Answers,), {"hub": hub})) as server:
        server.daemon_threads, server.block_on_close = True, False
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            hub.ended.set()
            server.shutdown()
