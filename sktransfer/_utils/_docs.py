"""Docstrings that share their entries of parameters."""

import inspect
import re


def parameters_like(*sources):
    """Decorate a class: copy parameter docs that it lacks from ``sources``, where the last wins."""

    def decorate(cls):
        if cls.__doc__ is None:  # python -OO
            return cls
        section = re.compile(r"(?<=^Parameters\n-{10}\n).*?(?=^Attributes\n)", re.S | re.M)
        docs = [inspect.cleandoc(documented.__doc__) for documented in (*sources, cls)]
        entries = {}
        for doc in docs:
            for entry in re.split(r"^(?=\w)", section.search(doc)[0].strip() + "\n", flags=re.M):
                entries[entry.partition(" :")[0]] = entry
        text = "".join(entries[name] for name in inspect.signature(cls).parameters)
        cls.__doc__ = section.sub(lambda _: text + "\n", docs[-1])
        return cls

    return decorate
