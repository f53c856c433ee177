"""Rows as Milvus takes them: pymilvus's messages, made without a Python number per component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, tuple[Any, Any]]
"""Field -> its pymilvus type and its values: a list, JSON as text; of vectors an array (N, D)."""


def upsert_request(collection: str, columns: Columns) -> Any:
    """An `UpsertRequest` of rows given by column."""
    from pymilvus import DataType
    from pymilvus.grpc_gen import milvus_pb2, schema_pb2

    request = milvus_pb2.UpsertRequest(collection_name=collection)
    for name, (kind, values) in columns.items():
        field = request.fields_data.add(field_name=name, type=int(kind))
        if kind == DataType.FLOAT_VECTOR:
            field.vectors.dim = values.shape[1]
            field.vectors.float_vector.CopyFrom(schema_pb2.FloatArray.FromString(_packed(values)))
        elif kind == DataType.INT64:
            field.scalars.long_data.data.extend(values)
        elif kind == DataType.VARCHAR:
            field.scalars.string_data.data.extend(values)
        else:
            field.scalars.json_data.data.extend([text.encode() for text in values])
        request.num_rows = len(values)
    return request


def _packed(vectors: NDArray[np.float32]) -> bytes:
    """A `FloatArray` as it is written: field 1, packed floats. pymilvus takes a list of numbers."""
    raw = np.ascontiguousarray(vectors, "<f4").tobytes()
    size, length = bytearray(), len(raw)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    size.append(length)
    return b"\x0a" + bytes(size) + raw
