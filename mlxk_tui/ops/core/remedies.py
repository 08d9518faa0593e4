"""Remedies: what a user can do about an error, and the texts that all front ends share.

A remedy that names a key, an option, a setting or an address is worded by the front end that shows it:
`mlxk_tui/ui/widgets/error_text.py` (the app), `mlxk_tui_headless/error_text.py` (the command line) and
`mlxk_tui/server/error_text.py` (HTTP).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Remedy(str, Enum):
    """What the user can do next: values of `error.remedy` in the JSON contract; versions may add some."""

    # The hub and its account
    ACCEPT_TERMS = "accept_terms"
    ACCEPT_TERMS_AND_LOG_IN = "accept_terms_and_log_in"
    LOG_IN = "log_in"
    REPLACE_TOKEN = "replace_token"  # noqa: S105 - no password
    CHECK_TOKEN_RIGHTS = "check_token_rights"  # noqa: S105 - no password
    CHECK_NAME_OR_LOG_IN = "check_name_or_log_in"
    CHECK_NAME_OR_MEMBERSHIP = "check_name_or_membership"
    LOOK_ON_HUB = "look_on_hub"
    # The network
    CHECK_NETWORK = "check_network"
    CHECK_PROXY = "check_proxy"
    CHECK_CERTIFICATES = "check_certificates"
    CHECK_ENDPOINT = "check_endpoint"
    CHANGE_ENDPOINT = "change_endpoint"
    CHANGE_PROXY = "change_proxy"
    GO_ONLINE = "go_online"
    # Another attempt
    TRY_AGAIN = "try_again"
    TRY_LATER = "try_later"
    TRY_LATER_OR_LOG_IN = "try_later_or_log_in"
    PULL_AGAIN = "pull_again"
    PULL_LATER = "pull_later"
    PUSH_AGAIN = "push_again"
    DELETE_AGAIN = "delete_again"
    SEND_AGAIN = "send_again"
    RESTART_APP = "restart_app"
    REPORT = "report"
    # The file system
    FREE_SPACE = "free_space"
    FREE_SPACE_OR_MOVE_CACHE = "free_space_or_move_cache"
    CHECK_PERMISSIONS = "check_permissions"
    CHECK_CACHE_VARIABLES = "check_cache_variables"
    CHOOSE_FOLDER = "choose_folder"
    CHOOSE_FILE = "choose_file"
    NAME_A_NEW_FOLDER = "name_a_new_folder"
    GIVE_MODEL_FOLDER = "give_model_folder"
    SET_TEMPORARY_FOLDER = "set_temporary_folder"
    REMOVE_LINK = "remove_link"
    REPLACE_FILE = "replace_file"
    RESTRICT_FILE = "restrict_file"
    MOVE_FILE_AWAY = "move_file_away"
    STOP_OTHER_PROGRAM = "stop_other_program"
    # Names
    GIVE_FULL_NAME = "give_full_name"
    GIVE_REPO_NAME = "give_repo_name"
    GIVE_LONGER_COMMIT = "give_longer_commit"
    NAME_A_REVISION = "name_a_revision"
    LIST_MODELS = "list_models"
    # Models
    CHECK_HEALTH = "check_health"
    CHOOSE_MODEL = "choose_model"
    REPLACE_OR_PULL_MODEL = "replace_or_pull_model"
    CHOOSE_MLX_MODEL = "choose_mlx_model"
    CHOOSE_EMBEDDING_MODEL = "choose_embedding_model"
    CHOOSE_SMALLER_MODEL = "choose_smaller_model"
    LEAVE_OUT_DRAFT = "leave_out_draft"
    FREE_MEMORY = "free_memory"
    FREE_MEMORY_OR_FORCE = "free_memory_or_force"
    INSTALL_PACKAGE = "install_package"
    INSTALL_EXTRA = "install_extra"
    # Requests
    CHANGE_MESSAGES = "change_messages"
    SHORTEN_PROMPT = "shorten_prompt"
    SPLIT_TEXT = "split_text"
    CHANGE_GRAMMAR = "change_grammar"
    LEAVE_OUT_GRAMMAR = "leave_out_grammar"
    # Deleting and cloning
    WAIT_OR_FORCE = "wait_or_force"
    REMOVE_OTHERS_OR_FORCE = "remove_others_or_force"
    REMOVE_MODEL_FIRST = "remove_model_first"
    PULL_OR_CLONE_UNCHECKED = "pull_or_clone_unchecked"
    PULL_FIRST = "pull_first"
    UNSET_TEST_DELETE = "unset_test_delete"
    # Pushing
    ENABLE_PUSH = "enable_push"
    CREATE_REPO = "create_repo"
    CREATE_BRANCH = "create_branch"
    MAKE_REPO_PRIVATE = "make_repo_private"
    CONFIRM_PRIVATE = "confirm_private"
    GIVE_COMMIT_MESSAGE = "give_commit_message"
    LEAVE_FILES_OUT = "leave_files_out"
    REPAIR_MODEL_CARD = "repair_model_card"
    # The server
    CHOOSE_ANOTHER_PORT = "choose_another_port"
    CHOOSE_HIGHER_PORT = "choose_higher_port"
    SET_API_KEY = "set_api_key"
    # The app
    CHOOSE_ANOTHER_CHAT = "choose_another_chat"
    REOPEN_CHAT = "reopen_chat"
    START_NEW_CHAT = "start_new_chat"
    CHANGE_DRAFT = "change_draft"
    CHOOSE_CHAT_EXPORT = "choose_chat_export"
    RENAME_OR_REPLACE = "rename_or_replace"
    UPGRADE = "upgrade"


@dataclass(frozen=True)
class ErrorFacts:
    """Values that front ends fill into a remedy's text, or act on. All text is untrusted."""

    name: str | None = None
    """Name of the model or repo."""
    path: str | None = None
    """A file or folder."""
    url: str | None = None
    """Web page that the user can open."""
    package: str | None = None
    """A package's name on PyPI, or an extra of this package."""
    variable: str | None = None
    """An environment variable."""
    needed_bytes: int | None = None
    available_bytes: int | None = None
    wait_s: int | None = None
    """Seconds to wait before another attempt."""

    def to_dict(self) -> dict[str, str | int]:
        """Return the facts that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: object) -> ErrorFacts:
        """Return the facts in JSON values from another process or a file; unknown ones are ignored."""
        if not isinstance(values, Mapping):
            return cls()
        given: dict[str, Any] = {
            name: value
            for name, value in values.items()
            if type(value) is (int if name in _NUMBERS else str) and name in cls.__dataclass_fields__
        }
        return cls(**given)


NO_FACTS = ErrorFacts()
_NUMBERS = frozenset({"needed_bytes", "available_bytes", "wait_s"})

_LOG_IN = "Log in with 'hf auth login' or set HF_TOKEN"
REMEDY_TEXTS: dict[Remedy, str] = {
    Remedy.ACCEPT_TERMS: "Request access at {url}",
    Remedy.ACCEPT_TERMS_AND_LOG_IN: f"Request access at {{url}} . {_LOG_IN}.",
    Remedy.LOG_IN: f"{_LOG_IN}.",
    Remedy.REPLACE_TOKEN: "Check HF_TOKEN, or log in with 'hf auth login'.",
    Remedy.CHECK_TOKEN_RIGHTS: "Check the token's permissions.",
    Remedy.CHECK_NAME_OR_LOG_IN: f"Check the name. Is the repo private? {_LOG_IN}.",
    Remedy.CHECK_NAME_OR_MEMBERSHIP: "Check the name. A private repo is visible to its members only.",
    Remedy.LOOK_ON_HUB: "The repo's page lists its revisions.",
    Remedy.CHECK_NETWORK: "Check the network and try again.",
    Remedy.CHECK_PROXY: "Check the network, the proxy and HF_ENDPOINT, then try again.",
    Remedy.CHECK_CERTIFICATES: "Check the system clock, the proxy and SSL_CERT_FILE.",
    Remedy.CHECK_ENDPOINT: "Check HF_ENDPOINT, or try again.",
    Remedy.CHANGE_ENDPOINT: "Unset it, or set it to an address that starts with https://.",
    Remedy.CHANGE_PROXY: "Set it to an address that starts with http:// or socks5://.",
    Remedy.GO_ONLINE: "Unset it to go online.",
    Remedy.TRY_AGAIN: "Try again.",
    Remedy.TRY_LATER: "Try again {when}.",
    Remedy.TRY_LATER_OR_LOG_IN: "Try again {when}. Logging in raises the limit.",
    Remedy.PULL_AGAIN: "Pull again to resume.",
    Remedy.PULL_LATER: "Pull again {when} to resume.",
    Remedy.PUSH_AGAIN: "Push again; uploaded files are not sent twice.",
    Remedy.SEND_AGAIN: "It restarts with the next request.",
    Remedy.RESTART_APP: "Restart the app.",
    Remedy.REPORT: "Please report it.",
    Remedy.FREE_SPACE: "Free some space and try again.",
    Remedy.FREE_SPACE_OR_MOVE_CACHE: "Free some space, or set HF_HUB_CACHE to a folder on another disk.",
    Remedy.CHECK_PERMISSIONS: "Check its owner and permissions.",
    Remedy.CHECK_CACHE_VARIABLES: "Check HF_HOME and HF_HUB_CACHE.",
    Remedy.CHOOSE_FOLDER: "Choose another folder.",
    Remedy.CHOOSE_FILE: "Choose another file.",
    Remedy.NAME_A_NEW_FOLDER: "Choose a folder that does not exist yet, or an empty one.",
    Remedy.GIVE_MODEL_FOLDER: "Choose the folder that contains the model.",
    Remedy.SET_TEMPORARY_FOLDER: "Set TMPDIR to a folder on another file system, such as APFS, ext4 or XFS.",
    Remedy.REMOVE_LINK: "Delete the link itself ({path}) to remove it.",
    Remedy.REPLACE_FILE: "Replace or remove it.",
    Remedy.RESTRICT_FILE: "Run 'chmod 600' on it.",
    Remedy.MOVE_FILE_AWAY: "Move it away and try again.",
    Remedy.STOP_OTHER_PROGRAM: "Stop it and try again.",
    Remedy.GIVE_FULL_NAME: "Use the full name of one of them.",
    Remedy.GIVE_REPO_NAME: "Use the form 'organization/model'.",
    Remedy.GIVE_LONGER_COMMIT: "Use more digits.",
    Remedy.NAME_A_REVISION: "Use a branch, a tag or a commit.",
    Remedy.CHOOSE_MLX_MODEL: "Choose an MLX model, such as one of mlx-community.",
    Remedy.CHOOSE_EMBEDDING_MODEL: "Choose an embedding model, such as Qwen3-Embedding.",
    Remedy.FREE_MEMORY: "Close other programs or choose a smaller model.",
    Remedy.INSTALL_PACKAGE: "Install it with 'pip install {package}'.",
    Remedy.INSTALL_EXTRA: "Install it with: pip install 'mlxk-tui[{package}]'",
    Remedy.SHORTEN_PROMPT: "Shorten the prompt, start a new chat, or choose a model with a longer context.",
    Remedy.SPLIT_TEXT: "Split it into smaller texts.",
    Remedy.CHANGE_GRAMMAR: "Change or omit it.",
    Remedy.LEAVE_OUT_GRAMMAR: "Choose another model, or omit the schema.",
    Remedy.REMOVE_MODEL_FIRST: "Remove the whole model instead.",
    Remedy.PULL_FIRST: "Pull it first.",
    Remedy.UNSET_TEST_DELETE: "Unset the variable, or create the file {path} in the cache.",
    Remedy.MAKE_REPO_PRIVATE: "Make it private on the hub, or choose another repo.",
    Remedy.LEAVE_FILES_OUT: "Exclude it in .hfignore.",
    Remedy.REPAIR_MODEL_CARD: "Fix the metadata between the --- lines at its top, then push again.",
    Remedy.CHOOSE_ANOTHER_CHAT: "Choose another one.",
    Remedy.REOPEN_CHAT: "Open the chat again.",
    Remedy.START_NEW_CHAT: "Start a new one.",
    Remedy.CHOOSE_CHAT_EXPORT: "Choose a JSON export of mlxk-tui.",
    Remedy.RENAME_OR_REPLACE: "Choose another name, or replace it.",
    Remedy.UPGRADE: "Upgrade mlxk-tui.",
}
"""Texts that all front ends share. `{…}` is a fact; `{when}` is `later` or `in 5 seconds`."""


def to_remedy(value: object) -> Remedy | None:
    """Return the remedy named by another process or a file; None if this version does not know it."""
    try:
        return Remedy(value)
    except ValueError:
        return None


def format_remedy(remedy: Remedy | None, facts: ErrorFacts, own: Mapping[Remedy, str]) -> str:
    """Return the text of a remedy, or an empty string where there is none.

    Args:
        remedy: the remedy of an error.
        facts: the values to fill in.
        own: the front end's own texts, which take precedence over the shared ones.
    """
    if remedy is None:
        return ""
    template = own.get(remedy, REMEDY_TEXTS.get(remedy, ""))
    when = "later" if facts.wait_s is None else f"in {facts.wait_s} seconds"
    try:
        return template.format_map({"when": when, **facts.to_dict()})
    except KeyError:  # another process or an older file did not send the fact
        return ""


def join_sentences(message: str, remedy: str) -> str:
    """Return the message of an error followed by the text of its remedy, if any."""
    return f"{message} {remedy}" if remedy else message
