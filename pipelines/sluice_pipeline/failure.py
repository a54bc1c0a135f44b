"""The one way in which a pipeline says why it stopped."""

from typing import Any


class Failure(Exception):
    """Ends the run with `error.json`.

    `code` is a stable word for programs; `message` names the field or the numbers for people;
    `details` holds the same for programs.
    """

    def __init__(self, code: str, message: str, **details: Any):
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "details": self.details}
