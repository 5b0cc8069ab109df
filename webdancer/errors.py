"""The errors that a user can meet. Each message says what, which id or file, got, expected, and what to do.

WebdancerError
├── ConfigError     a setting is unknown, of the wrong type, or its file is missing
├── StoreError      a records file is locked, damaged in its middle, or the disk is full
├── SnapshotError   a snapshot is missing, incomplete, or of another version
├── PromptError     a prompt file lacks a field or names an unknown one
├── TrainError      nothing to train on, a loss that is no number, a state of other settings
├── BudgetError     a limit of [budget] is reached
├── ReplayError     a call was not recorded, or the recording is damaged
└── ModelError      a chat endpoint failed for good, after retries
"""


class WebdancerError(Exception):
    """Base of all errors that are shown to the user without a traceback."""


class ConfigError(WebdancerError):
    """A setting is unknown, of the wrong type, or its file is missing."""


class StoreError(WebdancerError):
    """A records file is locked by another process, damaged, or cannot be written."""


class SnapshotError(WebdancerError):
    """A snapshot is missing, incomplete, or was written by another version."""


class PromptError(WebdancerError):
    """A prompt and the fields given to it do not agree."""


class TrainError(WebdancerError):
    """There is nothing to train on, the loss is no number, or an interrupted training was of other settings."""


class BudgetError(WebdancerError):
    """A limit of what a run may consume is reached."""


class ReplayError(WebdancerError):
    """A replayed run made a call that the recording does not hold, or the recording cannot be read."""


class ModelError(WebdancerError):
    """A chat model could not answer: the endpoint failed for good, or its answer was cut off."""


class BadRequestError(ModelError):
    """The model was asked for something that makes no sense to it."""


class ContextFullError(ModelError):
    """The endpoint refused the request because the context is full."""
