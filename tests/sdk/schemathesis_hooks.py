"""What schemathesis must know of forms. It loads this file by itself."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import schemathesis
from schemathesis.core.failures import AcceptedNegativeData


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Whether a failure is one: a number in a form is sent as its text, which the schema allows.

    Schemathesis knows that of single fields, but not of fields that are repeated.
    """
    return not (
        isinstance(failure, AcceptedNegativeData)
        and case.media_type == "multipart/form-data"
        and _valid_as_text(case)
    )


def _valid_as_text(case: Any) -> bool:
    """Whether nothing but the types of a form's values is wrong."""
    if not isinstance(case.body, dict):
        return False
    fields = {k: v if isinstance(v, list) else [v] for k, v in case.body.items()}
    schema = case.operation.get_body_for_media_type(case.media_type).optimized_schema
    texts = {name: [str(value) for value in values] for name, values in fields.items()}
    return bool(jsonschema_rs.validator_for(schema).is_valid(texts))
