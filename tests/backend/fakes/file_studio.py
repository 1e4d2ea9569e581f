"""A stand-in for Label Studio that exchanges tokens and hands out files."""

import base64
import json

from backend.label_studio.download import LabelStudioFiles
from backend.network.host_rules import HostRules
from tests.backend.fakes.local_server import Answer, Asked

#: As if this machine's own addresses were public ones.
LOOPBACK = HostRules.parse("127.0.0.0/8")
LEGACY = "c0ffee" * 6 + "beef"


def make_jwt(kind: str, name: str = "") -> str:
    claims = {"token_type": kind, "jti": name}
    parts = [json.dumps({"alg": "HS256"}), json.dumps(claims), "signature"]
    return ".".join(base64.urlsafe_b64encode(p.encode()).decode().rstrip("=") for p in parts)


PERSONAL = make_jwt("refresh")


class FileStudio:
    """Token exchange and files, as the real server has them, on two hosts of one machine."""

    def __init__(self) -> None:
        self.exchanges = 0
        self.valid = {f"Token {LEGACY}"}
        self.answers: dict[str, Answer] = {"/data/upload/1/a.png": Answer(body=b"picture")}

    def route(self, asked: Asked) -> Answer:
        if asked.path == "/api/token/refresh/":
            if json.loads(asked.body) != {"refresh": PERSONAL}:
                return Answer(401, b'{"detail": "Token is invalid"}')
            self.exchanges += 1
            access = make_jwt("access", str(self.exchanges))
            self.valid = {f"Bearer {access}"}
            return Answer(body=json.dumps({"access": access}).encode())
        if asked.authorization not in self.valid:
            return Answer(401)
        return self.answers.get(asked.path, Answer(404))


def fetch_file(files: LabelStudioFiles) -> bytes:
    return files.download(files.file_url("/data/upload/1/a.png"))
