"""Uses a Quorate node by reflection alone: put, get, scan, txn, and the details of an error."""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

channel = grpc.insecure_channel(sys.argv[1])
database = ProtoReflectionDescriptorDatabase(channel)
services = database.get_services()
assert "quorate.v1.Kv" in services and "grpc.health.v1.Health" in services, services
pool = descriptor_pool.DescriptorPool(database)
kv = pool.FindServiceByName("quorate.v1.Kv")


def message(descriptor):
    return message_factory.GetMessageClass(descriptor)


def call(name, **fields):
    method = kv.methods_by_name[name]
    stub = channel.unary_unary(
        f"/{kv.full_name}/{name}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=message(method.output_type).FromString,
    )
    return stub(message(method.input_type)(**fields), timeout=5)


default = {"keyspace": "default"}
written = call("Put", key=b"from-python", value=b"hello", **default)
assert written.revision > 0 and written.receipt.node > 0, written
got = call("Get", key=b"from-python", **default)
assert got.found and got.entry.value == b"hello", got
assert got.entry.revision == written.revision, got
assert not call("Get", key=b"absent", **default).found
call("Put", key=b"from-python-2", value=b"two", **default)
page = call("Scan", prefix=b"from-python", limit=1, **default)
assert [entry.key for entry in page.entries] == [b"from-python"], page
page = call("Scan", prefix=b"from-python", limit=1, page_token=page.next_page_token, **default)
assert [entry.key for entry in page.entries] == [b"from-python-2"], page
done = call(
    "Txn",
    compare=[{"key": b"from-python", "expect": {"revision": written.revision}}],
    then=[{"put": {"key": b"from-txn", "value": b"1"}}, {"get": {"key": b"from-python"}}],
    **default,
)
assert done.succeeded and done.results[1].entry.value == b"hello", done

info_type = message(pool.FindMessageTypeByName("google.rpc.ErrorInfo"))
status_type = message(pool.FindMessageTypeByName("google.rpc.Status"))


def refused(name, **fields):
    try:
        call(name, **fields)
    except grpc.RpcError as error:
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        for detail in status_type.FromString(details).details:
            info = info_type()
            if detail.Unpack(info):
                return error.code(), info
        raise AssertionError(f"no ErrorInfo: {error}") from error
    raise AssertionError(f"{name} was not refused")


code, info = refused("Put", key=b"", value=b"v", **default)
assert code == grpc.StatusCode.INVALID_ARGUMENT, code
assert (info.reason, info.metadata["effect"]) == ("KEY_EMPTY", "none"), info
code, info = refused("Get", key=b"k", keyspace="absent")
assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "KEYSPACE_NOT_FOUND"), info
print("ok")
