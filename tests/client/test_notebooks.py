"""A program in a Jupyter notebook, whose cells are run again and again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbformat import v4

from tests.contract.world import PATIENCE

KERNELS = """
from pydotcompute import message, ring_kernel

@message
class Note:
    text: str = ""
    count: int = 1

@ring_kernel(input_type=Note, output_type=Note)
async def repeat(ctx):
    async for note in ctx:
        await ctx.send(Note(note.text * note.count, correlation_id=note.message_id))
"""

DECLARE = """
from pydotcompute import message
from pydotcompute_client import connect

@message
class Note:
    text: str = ""
"""

OPEN = """
runtime = connect({target!r})
await runtime.start()
"""

ASK = """
reply = await runtime.send_and_receive("repeat", Note("x"), timeout={patience})
print(reply.text, type(reply) is Note)
"""

SHOUT = """
@message
class Note:
    text: str = ""
    count: int = 3

    def loud(self):
        return self.text.upper()
"""

LOUD = """
reply = await runtime.send_and_receive("repeat", Note("y"), timeout={patience})
print(reply.loud(), reply.count)
"""

CLOSE = """
await runtime.shutdown()
"""


def test_replies_are_of_the_class_of_the_cell_that_was_run_last(
    start_daemon: Callable[..., Any], tmp_path: Path
) -> None:
    kernels = tmp_path / "notes.py"
    kernels.write_text(KERNELS)
    target = start_daemon(str(kernels), "--launch", "repeat").target
    sources = [DECLARE, OPEN, ASK, DECLARE, ASK, SHOUT, LOUD, CLOSE]
    made: Any = v4
    cells = [made.new_code_cell(source.format(target=target, patience=PATIENCE)) for source in sources]
    notebook = made.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=int(PATIENCE), kernel_name="python3", resources=resources).execute()
    printed = ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]
    assert [text.strip() for text in printed if text] == ["x True", "x True", "YYY 1"]
