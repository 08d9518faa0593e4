"""What a user can do about an error: the remedies, and the words of those that are alike everywhere.

A remedy that needs a key, an option, a setting or an address is worded by the front end that shows it:
`mlxk_tui/ui/widgets/error_text.py` (the app), `mlxk_tui_headless/error_text.py` (the command line) and
`mlxk_tui/server/error_text.py` (HTTP).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Remedy(str, Enum):
    """What to do next: `error.remedy` of the JSON contract. New ones may be added."""

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
    # Once more
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
    """What an error is about, typed; only what front ends make use of. All text is untrusted."""

    name: str | None = None
    """The model or repo."""
    path: str | None = None
    """A file or folder."""
    url: str | None = None
    """A page to open."""
    package: str | None = None
    """What pip calls it, or the extra of this package."""
    variable: str | None = None
    """An environment variable."""
    needed_bytes: int | None = None
    available_bytes: int | None = None
    wait_s: int | None = None
    """Seconds until another attempt makes sense."""

    def as_dict(self) -> dict[str, str | int]:
        """Return what is known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def read(cls, values: object) -> ErrorFacts:
        """Return the facts that another process or a file holds; what is not understood is left out."""
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
SHARED_WORDS: dict[Remedy, str] = {
    Remedy.ACCEPT_TERMS: "Ask for access at {url}",
    Remedy.ACCEPT_TERMS_AND_LOG_IN: f"Ask for access at {{url}} . {_LOG_IN}.",
    Remedy.LOG_IN: f"{_LOG_IN}.",
    Remedy.REPLACE_TOKEN: "Check HF_TOKEN, or log in with 'hf auth login'.",
    Remedy.CHECK_TOKEN_RIGHTS: "Check what the token may do.",
    Remedy.CHECK_NAME_OR_LOG_IN: f"Check the name; is it private? {_LOG_IN}.",
    Remedy.CHECK_NAME_OR_MEMBERSHIP: "Check the name; a private repo shows to its members only.",
    Remedy.LOOK_ON_HUB: "Look there for one.",
    Remedy.CHECK_NETWORK: "Check the network and try again.",
    Remedy.CHECK_PROXY: "Check the network, a proxy, or HF_ENDPOINT, and try again.",
    Remedy.CHECK_CERTIFICATES: "Check the clock, a proxy, or SSL_CERT_FILE.",
    Remedy.CHECK_ENDPOINT: "Check HF_ENDPOINT, or try again.",
    Remedy.CHANGE_ENDPOINT: "Unset it, or give one that starts with https://.",
    Remedy.CHANGE_PROXY: "Give one that starts with http:// or socks5://.",
    Remedy.GO_ONLINE: "Unset it to go online.",
    Remedy.TRY_AGAIN: "Try again.",
    Remedy.TRY_LATER: "Try again {when}.",
    Remedy.TRY_LATER_OR_LOG_IN: "Try again {when}; logged in, more are allowed.",
    Remedy.PULL_AGAIN: "Pull again; what is there is kept.",
    Remedy.PULL_LATER: "Pull again {when}; what is there is kept.",
    Remedy.PUSH_AGAIN: "Push again: what arrived is not sent twice.",
    Remedy.SEND_AGAIN: "It restarts with the next request.",
    Remedy.RESTART_APP: "Start the app again.",
    Remedy.REPORT: "Please report it.",
    Remedy.FREE_SPACE: "Free some space and try again.",
    Remedy.FREE_SPACE_OR_MOVE_CACHE: "Free some space, or set HF_HUB_CACHE to a folder on another disk.",
    Remedy.CHECK_PERMISSIONS: "Check its owner and permissions.",
    Remedy.CHECK_CACHE_VARIABLES: "Check HF_HOME and HF_HUB_CACHE.",
    Remedy.CHOOSE_FOLDER: "Choose another folder.",
    Remedy.CHOOSE_FILE: "Choose another file.",
    Remedy.NAME_A_NEW_FOLDER: "Give a folder that does not exist yet, or an empty one.",
    Remedy.GIVE_MODEL_FOLDER: "Give the folder that holds the model.",
    Remedy.SET_TEMPORARY_FOLDER: "Set TMPDIR to a folder on another one, such as APFS, ext4 or XFS.",
    Remedy.REMOVE_LINK: "Remove the link itself ({path}) if you want it gone.",
    Remedy.REPLACE_FILE: "Replace it, or remove it.",
    Remedy.RESTRICT_FILE: "Run 'chmod 600' on it.",
    Remedy.MOVE_FILE_AWAY: "Move it away and try again.",
    Remedy.STOP_OTHER_PROGRAM: "Stop it and try again.",
    Remedy.GIVE_FULL_NAME: "Give the full name of one of them.",
    Remedy.GIVE_REPO_NAME: "Give 'organization/model'.",
    Remedy.GIVE_LONGER_COMMIT: "Give more digits.",
    Remedy.NAME_A_REVISION: "Give a branch, a tag or a commit.",
    Remedy.CHOOSE_MLX_MODEL: "The models of mlx-community run here.",
    Remedy.CHOOSE_EMBEDDING_MODEL: "Choose one that does, such as Qwen3-Embedding.",
    Remedy.FREE_MEMORY: "Close other programs or take a smaller model.",
    Remedy.INSTALL_PACKAGE: "Install it with 'pip install {package}'.",
    Remedy.INSTALL_EXTRA: "Install it with: pip install 'mlxk-tui[{package}]'",
    Remedy.SHORTEN_PROMPT: "Shorten the prompt, start a new chat, or take a model with a longer context.",
    Remedy.SPLIT_TEXT: "Split it into smaller ones.",
    Remedy.CHANGE_GRAMMAR: "Change it, or leave it out.",
    Remedy.LEAVE_OUT_GRAMMAR: "Take another model, or leave the schema out.",
    Remedy.REMOVE_MODEL_FIRST: "Remove the whole model instead.",
    Remedy.PULL_FIRST: "Pull it first.",
    Remedy.UNSET_TEST_DELETE: "Unset the variable, or put a file {path} into the cache.",
    Remedy.MAKE_REPO_PRIVATE: "Make it private on the hub, or give another repo.",
    Remedy.LEAVE_FILES_OUT: "Leave it out with .hfignore.",
    Remedy.REPAIR_MODEL_CARD: "Repair the lines between --- at its top, and push again.",
    Remedy.CHOOSE_ANOTHER_CHAT: "Choose another one.",
    Remedy.REOPEN_CHAT: "Open the chat again.",
    Remedy.START_NEW_CHAT: "Start a new one.",
    Remedy.CHOOSE_CHAT_EXPORT: "Choose a JSON export of mlxk-tui.",
    Remedy.RENAME_OR_REPLACE: "Choose another name, or replace it.",
    Remedy.UPGRADE: "Upgrade mlxk-tui.",
}
"""What every front end says alike; `{…}` is a fact, `{when}` is `later` or `in 5 seconds`."""


def remedy_of(value: object) -> Remedy | None:
    """Return the remedy that another process or a file names; None where this version knows it not."""
    try:
        return Remedy(value)
    except ValueError:
        return None


def words_for(remedy: Remedy | None, facts: ErrorFacts, own: Mapping[Remedy, str]) -> str:
    """Return what to do as a sentence, or an empty string.

    Args:
        remedy: what to do.
        facts: what the sentence may name.
        own: the words of a front end, for what it does not say as all others do.
    """
    if remedy is None:
        return ""
    template = own.get(remedy, SHARED_WORDS.get(remedy, ""))
    when = "later" if facts.wait_s is None else f"in {facts.wait_s} seconds"
    try:
        return template.format_map({"when": when, **facts.as_dict()})
    except KeyError:  # another process or an older file left a fact out
        return ""


def joined(message: str, words: str) -> str:
    """Return the cause and what to do about it as one text."""
    return f"{message} {words}" if words else message
