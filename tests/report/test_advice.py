"""Advice: the right sentence for the right numbers, and no command that does not exist."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from made_up import evaluation, latency, model, report, row

from onnx_relief.commands.app import app
from onnx_relief.report.advice import COMMANDS, advise
from onnx_relief.report.build import DataRow, RefusalRow


def advice(**changed):
    return advise(report(**changed))


def says(part, **changed):
    found = [text for text in advice(**changed) if part in text]
    assert len(found) <= 1
    return bool(found)


def test_the_list_of_commands_is_that_of_the_command_line():
    assert set(COMMANDS) == {command.name for command in app.registered_commands}


def test_no_missing_command_is_named():
    for text in advice(latency=None, evaluation=None):
        assert set(re.findall(r"onnx-relief (\w+)", text)) <= set(COMMANDS)


def test_nothing_faster_is_said_with_both_times():
    assert says("it is not faster (2 ms before, 1.99 ms now)", latency=latency(2.0, 1.99))
    assert not says("faster", latency=latency(2.0, 1.0))


@pytest.mark.parametrize(("nonzero", "named"), [(180, True), (181, False), (0, True)])
def test_the_runtime_that_gains_from_zeros_is_named_from_80_percent_on(nonzero, named):
    assert says("--detectSparseSpeedUp", pruned=model(nonzero=nonzero)) == named
    assert says("MNN", pruned=model(nonzero=nonzero)) == named


def test_a_gain_within_the_spread_of_sessions_is_none():
    found = latency(2.0, 1.0, spread=3.0)
    assert says("sessions of one model differ as much (2 ms before, 1 ms now)", latency=found)


def test_dead_units_are_counted():
    assert says("2 dead units may be cut out of the tensors, as far as nothing else keeps them")
    assert says("no unit lost all", layers=(row(alive=10, removed=0),))
    assert not says("`onnx-relief compact`", layers=(row(kind="recurrent"),))


def test_what_layers_are_not_is_said():
    assert says("only 9.0% of the parameters", dense=replace(model(), parameters=10_000))
    assert not says("of the parameters are weights of layers")
    refusals = [RefusalRow(node=str(at), op="ConvInteger", reason="-") for at in range(2)]
    refusals.append(RefusalRow(node="m", op="Mul", reason="it scales"))
    assert says("MACs leave out 2 nodes that multiply by weights", refusals=tuple(refusals))
    assert says("(2 ConvInteger)", refusals=tuple(refusals))
    assert not says("MACs leave out", refusals=tuple(refusals[2:]))


@pytest.mark.parametrize(
    ("plain", "sentence"),
    [
        (100_000, "the file keeps its 100 kB"),
        (101_000, "the file keeps its 101 kB"),
        (500_000, "the file grew from 100 kB to 500 kB"),
        (50_000, "the file: 100 kB -> 50.0 kB"),
    ],
)
def test_bytes_are_said(plain, sentence):
    both = {
        "dense": model(plain=100_000),
        "pruned": model(plain=plain, zipped=500, nonzero=540),
    }
    assert says(sentence, **both)
    assert says("zipped 900 B -> 500 B", **both)


def test_a_loss_of_accuracy_is_said():
    assert says("accuracy fell from 98.00 % to 96.00 %", evaluation=evaluation(pruned=96.0))
    assert not says("fell")


def test_a_loss_of_agreement_is_said():
    lost = evaluation(metric="agreement", dense=None, pruned=80.0)
    assert says("only 80.00 % of decisions", evaluation=lost)


@pytest.mark.parametrize(
    ("settings", "remedy", "never"),
    [
        ({"budget": "alpha", "structure": "weight"}, "a higher --alpha keeps more", "--repair"),
        ({"budget": "alpha", "structure": "2:4"}, "take --repair least-squares", "--alpha"),
        ({"replayed_plan": True}, "add --repair least-squares", "make a plan"),
        ({"replayed_plan": True, "repair": "bias"}, "make a plan of this very model", "--repair"),
        ({"budget": "--sparsity 0.5"}, "prune less than with --sparsity 0.5, take", "--alpha"),
    ],
)
def test_what_is_recommended_has_to_do_with_what_was_asked(settings, remedy, never):
    lossy = evaluation(metric="agreement", dense=None, pruned=80.0)
    told = " ".join(advice(evaluation=lossy, settings={"repair": "none", **settings}))
    assert remedy in told
    assert never not in told


def test_notes_of_the_comparison_are_said():
    assert says("it holds NaN", evaluation=evaluation(notes=("it holds NaN",)))


def test_a_comparison_on_the_calibration_data_is_said():
    data = DataRow(calibration="a", evaluation="a", same=True, skipped={})
    assert says("--eval-data", data=data)
    assert not says("--eval-data")


def test_a_comparison_that_chose_the_model_is_said():
    assert says("chosen by this very comparison", settings={"budget": "--max-drop 1.0"})
    assert not says("chosen by", settings={"budget": "--sparsity 0.5"})


def test_no_comparison_at_all_is_said():
    assert says("was not compared", evaluation=None, latency=None)


def test_broken_pictures_are_counted_and_named():
    data = DataRow(skipped={"a.jpg": "truncated", "b.jpg": "empty"})
    assert says("left out 2 pictures that cannot be read, first a.jpg (truncated)", data=data)


def test_nothing_dropped_is_said_first():
    found = advice(pruned=model())
    assert found[0].startswith("nothing was dropped")
    assert len(found) == 1


@pytest.mark.parametrize(
    ("changed", "end"),
    [
        ({"settings": {"budget": "alpha"}}, "a lower --alpha drops more"),
        ({"settings": {"budget": "--sparsity 0.3"}}, "it meets --sparsity 0.3 already"),
        ({"settings": {"budget": "--target-bytes 9"}}, "it meets --target-bytes 9 already"),
        ({"settings": {"budget": "--max-drop 0.0"}}, "nothing can go within --max-drop 0.0"),
        ({"settings": {"budget": "alpha", "structure": "2:4"}}, "it has 2:4 zeros already"),
        ({"settings": {"replayed_plan": True}}, "the plan keeps all that is not zero"),
        (
            {"dense": model(nonzero=0), "pruned": model(nonzero=0)},
            "its layers hold nothing but zeros",
        ),
        ({"missed": "--sparsity 0.3 is not reached"}, "--sparsity 0.3 is not reached"),
    ],
)
def test_why_nothing_was_dropped_has_to_do_with_what_was_asked(changed, end):
    said = advice(**{"pruned": model(), **changed})[0]
    assert said == f"nothing was dropped: the model was written as it is; {end}"


def test_a_file_that_changed_is_not_called_as_it_is():
    other = replace(model(), files=(replace(model().files[0], sha256="1" * 64),))
    said = advice(pruned=other)[0]
    assert said.startswith("nothing was dropped: no weight became zero; a lower")


def test_biases_that_a_repair_adds_make_up_for_no_zeros():
    pruned = replace(model(nonzero=540), nonzero=model().nonzero)
    assert not says("nothing was dropped", pruned=pruned)


def test_layers_without_any_connection_left_are_named():
    assert says("no connection is left in conv:", layers=(row(kept=0, alive=0, removed=0),))
    assert not says("no connection is left")
