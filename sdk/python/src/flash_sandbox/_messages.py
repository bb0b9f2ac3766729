"""The messages of the gRPC service, as proto/sandbox/sandbox.proto has them.

They are described here rather than in code made by protoc: generated code
runs only with protobuf releases near the protoc that made it, and registers
its names for the whole process, where another package's ``sandbox`` messages
would collide with them. A test compares this table with the .proto file.
"""

from __future__ import annotations

from typing import Any, Dict, Tuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "sandbox"
SERVICE = "sandbox.SandboxService"

_Field = descriptor_pb2.FieldDescriptorProto

_TYPES = {
    "string": _Field.TYPE_STRING,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint64": _Field.TYPE_UINT64,
    "double": _Field.TYPE_DOUBLE,
}

#: Message name to fields, in the order of their numbers, which begin at 1.
_MESSAGES: Dict[str, Tuple[str, ...]] = {
    "StartRequest": (
        "string type",
        "string image",
        "repeated string command",
        "int64 memory_mb",
        "double cpu_cores",
    ),
    "StartResponse": ("string id",),
    "StopRequest": ("string id", "bool skip_cleanup"),
    "StopResponse": (),
    "ExecRequest": ("string id", "repeated string command"),
    "ExecResponse": ("string stdout", "string stderr", "int32 exit_code"),
    "StatusRequest": ("string id",),
    "StatusResponse": ("string id", "string status"),
    "MetricsRequest": ("string id",),
    "MetricsResponse": (
        "uint64 memory_usage_bytes",
        "uint64 memory_limit_bytes",
        "double memory_percent",
        "double cpu_percent",
        "uint64 pids_current",
        "uint64 net_rx_bytes",
        "uint64 net_tx_bytes",
        "uint64 block_read_bytes",
        "uint64 block_write_bytes",
    ),
    "SnapshotRequest": ("string id",),
    "SnapshotResponse": ("string snapshot_path", "string mem_file_path"),
    "ResumeRequest": ("string id",),
    "ResumeResponse": (),
    "RunPythonRequest": ("string id", "string code"),
    "RunPythonResponse": ("string result",),
    "GetPlatformInfoRequest": ("string id",),
    "GetPlatformInfoResponse": ("string info",),
}

#: Method name to the names of its request and its response; all are unary.
METHODS: Dict[str, Tuple[str, str]] = {
    "StartSandbox": ("StartRequest", "StartResponse"),
    "StopSandbox": ("StopRequest", "StopResponse"),
    "ExecCommand": ("ExecRequest", "ExecResponse"),
    "GetStatus": ("StatusRequest", "StatusResponse"),
    "GetMetrics": ("MetricsRequest", "MetricsResponse"),
    "SnapshotSandbox": ("SnapshotRequest", "SnapshotResponse"),
    "ResumeSandbox": ("ResumeRequest", "ResumeResponse"),
    "RunPython": ("RunPythonRequest", "RunPythonResponse"),
    "GetPlatformInfo": ("GetPlatformInfoRequest", "GetPlatformInfoResponse"),
}


def file_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """Return the whole description as protoc would give it, but for options."""
    file = descriptor_pb2.FileDescriptorProto(name="sandbox.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, text in enumerate(fields, start=1):
            *repeated, kind, field = text.split()
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=_TYPES[kind], label=label)
    service = file.service.add(name=SERVICE[len(PACKAGE) + 1 :])
    for name, (request, response) in METHODS.items():
        service.method.add(name=name, input_type=f".{PACKAGE}.{request}", output_type=f".{PACKAGE}.{response}")
    return file


def _classes() -> Dict[str, Any]:
    pool: Any = descriptor_pool.DescriptorPool()  # some releases of its stubs leave methods untyped
    pool.AddSerializedFile(file_descriptor().SerializeToString())
    found = {name: pool.FindMessageTypeByName(f"{PACKAGE}.{name}") for name in _MESSAGES}
    if hasattr(message_factory, "GetMessageClass"):
        return {name: message_factory.GetMessageClass(d) for name, d in found.items()}
    # protobuf before 4.22
    factory: Any = message_factory.MessageFactory(pool)  # type: ignore[attr-defined,unused-ignore]
    return {name: factory.GetPrototype(d) for name, d in found.items()}


#: Message name to message class.
CLASSES: Dict[str, Any] = _classes()
