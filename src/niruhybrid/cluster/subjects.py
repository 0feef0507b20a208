"""Names of subjects that publishers and workers have to agree on. Pure."""

import socket

__all__ = ("data_subject", "health_subject")


def data_subject(prefix: str, document_id: str) -> str:
    """Return the subject that the messages of one document have: made of its id, so that their order can be told.

    Args:
        prefix: `prefix` of the settings of the workers.
        document_id: any id; one that can't be part of a subject is written in hexadecimal.
    """
    plain = document_id.isascii() and all(sign.isalnum() or sign in "-_" for sign in document_id)
    return f"{prefix}.data.{document_id if plain else '=' + document_id.encode().hex()}"


def health_subject(prefix: str) -> str:
    """Return the subject on which the workers of this host tell how they are; in a container there is one."""
    host = "".join(sign if sign.isalnum() else "-" for sign in socket.gethostname())
    return f"{prefix}.health.{host}"
