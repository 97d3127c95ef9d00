"""Generated functions."""

from pydotcompute.schema.codegen import Source


def test_no_name_that_is_made_is_a_taken_one() -> None:
    source = Source("test", taken=["value1", "value2", "cls_0", "cls_1_"])
    assert source.fresh("value") == "value3"
    first, second = source.bind(object(), "cls"), source.bind(object(), "cls")
    assert not {first, second} & {"cls_0", "cls_1_"}
    assert first != second


def test_the_functions_can_use_what_is_bound() -> None:
    source, answer = Source("test"), object()
    with source.block("def ask():"):
        source.line(f"return {source.bind(answer, 'answer')}")
    assert source.run()["ask"]() is answer
    assert source.bind(answer, "another hint") == "answer_0"
