"""The table in _messages against the .proto file, by protoc itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_tools import protoc

from flash_sandbox import _messages

PROTO = Path(__file__).resolve().parents[3] / "proto" / "sandbox" / "sandbox.proto"


def test_table_is_what_the_proto_file_says(tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert protoc.main(["protoc", f"-I{PROTO.parent}", f"--descriptor_set_out={out}", str(PROTO)]) == 0
    compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    ours = _messages.file_descriptor()
    assert compiled.package == ours.package
    for file in (compiled, ours):
        for message in file.message_type:
            for field in message.field:
                field.ClearField("json_name")
    assert {m.name: m for m in compiled.message_type} == {m.name: m for m in ours.message_type}
    assert list(compiled.service) == list(ours.service)


def test_names_stay_private() -> None:
    pool: Any = descriptor_pool
    with pytest.raises(KeyError):
        pool.Default().FindMessageTypeByName("sandbox.StartRequest")


def test_round_trip() -> None:
    request = _messages.CLASSES["StartRequest"](type="gvisor", command=["a", ""], memory_mb=-1, cpu_cores=0.5)
    again = _messages.CLASSES["StartRequest"].FromString(request.SerializeToString())
    assert (again.type, list(again.command), again.memory_mb, again.cpu_cores) == ("gvisor", ["a", ""], -1, 0.5)
