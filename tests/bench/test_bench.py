"""`freefast bench` end to end, small, on the CPU."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from freefast.bench import BenchConfig, bench, limits, roofline, table
from freefast.bench.measure import measure
from freefast.bench.variants import chosen, variants
from freefast.cli import main
from freefast.errors import UserError

SMALL = ["bench", "--device", "cpu", "--width", "8", "--batch-size", "4", "--samples", "18", "--steps", "2"]
TIMED = ("standard", "fast", "pgd")
FIGURES = ("step_ms", "epoch_s", "flops", "bytes_moved", "flops_per_second", "flops_per_byte", "share", "times")


@pytest.fixture(autouse=True, scope="module")
def single() -> Iterator[None]:
    """One thread, also for what the module's fixtures make: steps this small are not shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command wrote, no torch.compile."""
    path = tmp_path_factory.mktemp("bench") / "new" / "folder"
    methods = ["--methods", *TIMED]
    assert (
        main([*SMALL, *methods, "--precisions", "fp32", "--skip", "compile", "--budget", "600", "--out", str(path)])
        == 0
    )
    return path


@pytest.fixture(scope="module")
def content(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_every_variant_has_figures_that_belong_together(content: dict) -> None:
    rows = content["rows"]
    assert [row["variant"] for row in rows] == [
        f"{method} {who} fp32 eager" for method in TIMED for who in ("plain", "ours")
    ]
    for row in rows:
        assert all(row[name] > 0 for name in FIGURES), row
        assert row["finite"]
        assert row["epoch_s"] == pytest.approx(row["step_ms"] / 1e3 * 50_000 / 4)
        assert row["share"] == pytest.approx(row["flops"] / (row["step_ms"] / 1e3) / row["limit_flops_per_second"])
        assert row["limit_source"].startswith("measured: torch.matmul")
        assert min(row["rounds_ms"]) <= row["step_ms"] <= max(row["rounds_ms"])
    for plain, ours in zip(rows[::2], rows[1::2], strict=True):
        assert plain["times"] == 1
        assert ours["times"] == pytest.approx(plain["step_ms"] / ours["step_ms"])
        assert plain["flops"] == ours["flops"] == ours["flops_computed"] <= plain["flops_computed"]
    assert {"device", "cpu", "torch", "command", "commit"} <= set(content["environment"])


def test_figure_exists_in_both_forms(folder: Path) -> None:
    with Image.open(folder / "roofline.png") as image:
        assert image.width > image.height > 300
    assert ElementTree.parse(folder / "roofline.svg").getroot().tag.endswith("svg")


def test_table_has_a_line_a_variant(folder: Path, content: dict, capsys: pytest.CaptureFixture) -> None:
    assert main([*SMALL, "--only", "standard", "--skip", "compile", "--out", str(folder / "two")]) == 0
    out, err = capsys.readouterr()
    for row in json.loads((folder / "two" / "results.json").read_text())["rows"]:
        assert row["variant"] in out
        assert f"{row['step_ms']:.2f}" in out
        assert f"{row['variant']}: {row['step_ms']:.2f} ms a step" in err
    assert "Launches" not in out
    assert "TFLOP/s, measured: torch.matmul of 1024 x 1024 float32 matrices" in out.splitlines()[-1]
    assert [column.title for column in table.columns([content["rows"][0] | {"launches": 3.0}])].count("Launches") == 1


def test_what_the_budget_does_not_hold_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*SMALL, "--methods", "fast", "--budget", "1", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("left out: the budget of seconds would not last") >= 2
    assert (tmp_path / "roofline.png").exists()


def test_a_variant_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("out of luck\nand more")

    monkeypatch.setattr("freefast.bench.plain.PlainLoop.step", fail)
    assert main([*SMALL, "--methods", "standard", "--skip", "compile", "--out", str(tmp_path)]) == 2
    said = "1 failed, first standard plain fp32 eager: RuntimeError: out of luck"
    assert capsys.readouterr().err.splitlines()[-1] == f"freefast: {said}"
    plain, ours = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert plain["error"] == "RuntimeError: out of luck"
    assert ours["step_ms"] > 0
    assert ours["times"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "slow"], "slow"),
        (["--methods", "fast", "fast"], "methods: wanted some of standard, free, fast, pgd, each once"),
        (["--precisions", "fp8"], "fp8"),
        (["--device", "cuda:99"], "device: cuda:99 is not there"),
        (["--device", "abacus"], "device: wanted auto, cpu, cuda or cuda:N"),
        (["--steps", "0"], "steps: wanted at least 1, got 0"),
        (["--batch-size", "19"], "batch_size: wanted at most as many as there are images, got 19"),
        (["--budget", "nan"], "budget: wanted seconds above 0"),
        (["--width", "4"], "width: wanted at least 8"),
        (["--width", "8", "--model", "wideresnet"], "width"),
        (["--model", "resnet51"], "model: wanted one of"),
        (["--only", "slow"], "only, skip: no variant is left"),
        (["--dataset", "imagefolder"], "root"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([*SMALL, "--methods", "fast", "--out", str(tmp_path / "out"), *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("freefast: ")
    assert err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "--device", "cuda", "--out", str(tmp_path / "out")]) == 2
    assert "device: cuda is not there" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert main([*SMALL, "--out", str(tmp_path / "file" / "out")]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path / "file") in err
    assert err.count("\n") == 1


def test_a_run_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert main([*SMALL, "--out", str(tmp_path)]) == 2
    assert f"out: {tmp_path} holds results of something else, wanted another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("content", "status"), [('{"rows": [{"seed": 0}]}', 2), ("[]", 2), ("{", 2), ('{"rows": [], "environment": {}}', 0)]
)
def test_results_of_something_else_are_kept_and_interrupted_ones_replaced(
    tmp_path: Path, content: str, status: int
) -> None:
    results = tmp_path / "results.json"
    results.write_text(content)
    assert main([*SMALL, "--only", "standard", "ours", "--skip", "compile", "--out", str(tmp_path)]) == status
    assert (results.read_text() == content) == (status == 2)


def test_real_images_give_their_own_epoch(tmp_path: Path) -> None:
    config = BenchConfig(
        methods=("standard",), precisions=("fp32",), skip=("compile",), dataset="digits", samples=100, batch_size=16,
        steps=2, width=4, device="cpu", out=tmp_path,
    )  # fmt: skip
    for row in bench(config):
        assert "error" not in row, row
        assert row["epoch_s"] == pytest.approx(row["step_ms"] / 1e3 * 1437 / 16)


@pytest.mark.gpu
def test_rows_of_a_gpu(tmp_path: Path) -> None:
    """A graph is one launch, operators are many and keep the host busy for longer."""
    assert main([
        "bench", "--device", "cuda", "--methods", "fast", "--precisions", "half-bf16", "--skip", "compile", "search",
        "--width", "16", "--batch-size", "32", "--samples", "1280", "--steps", "6", "--out", str(tmp_path),
    ]) == 0  # fmt: skip
    plain, graph, eager = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert plain["variant"] == "fast plain amp-fp16 eager"
    assert graph["launches"] == 1 < eager["launches"] < plain["launches"]
    assert 0 < graph["host_ms"] < eager["host_ms"]
    assert graph["flops"] == eager["flops_computed"] < plain["flops_computed"]
    assert all(row["memory_mib"] > 0 and row["finite"] and row["kernels"] for row in (plain, graph, eager))


def test_variants_of_cuda_and_words_that_choose_them() -> None:
    found = variants(("fast", "free"), ("half-bf16", "fp32"), "cuda")
    names = [variant.name for variant in found]
    assert len(set(names)) == len(names)
    assert names[0] == "fast plain amp-fp16 eager"
    assert {"free ours fp32 graph", "free ours half-bf16 eager", "fast plain amp-fp16 eager compile"} <= set(names)
    assert not [name for name in names[: -len(chosen(found, ["compile"], []))] if "compile" in name]
    assert [variant.name for variant in chosen(found, ["ours", "free"], ["search", "half-bf16"])] == [
        "free ours fp32 graph", "free ours fp32 eager"
    ]  # fmt: skip


@pytest.mark.parametrize("sheet", limits.SHEETS, ids=lambda sheet: sheet.devices[0])
def test_data_sheets_are_of_tensor_cores_without_sparsity(sheet: limits.Sheet) -> None:
    """TF32 is half of 16 bits, bfloat16 as float16, float32 below both."""
    tera = sheet.tera
    assert tera[torch.float16] == tera[torch.bfloat16] == pytest.approx(2 * tera["tf32"])
    assert tera[torch.float32] < tera["tf32"] / 5


def test_limits_of_a_known_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    cuda = torch.device("cuda")
    for tf32, flops in ((True, 494.7e12), (False, 66.9e12)):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
        limit = limits.arithmetic(cuda, torch.float32)
        assert limit.flops == pytest.approx(flops)
        assert limit.source.startswith("data sheet: NVIDIA H100")
    assert limits.arithmetic(cuda, torch.bfloat16).flops == pytest.approx(989.4e12)


def test_measured_limits_are_of_this_machine() -> None:
    limit = limits.arithmetic(torch.device("cpu"), torch.float32)
    assert 1e9 < limit.flops < 1e14
    assert 1e8 < limits.memory(torch.device("cpu")) < 1e13


def test_figure_places_a_point_a_variant_and_a_roof_a_precision() -> None:
    def row(method: str, precision: str, who: str, place: tuple[float, float]) -> dict:
        limit = {"fp32": 1e12, "half-bf16": 4e12}[precision]
        return {
            "method": method, "precision": precision, "who": who, "how": "eager", "flops_per_byte": place[0],
            "flops_per_second": place[1], "limit_flops_per_second": limit, "limit_bytes_per_second": 1e11,
        }  # fmt: skip

    points = {
        ("fast", "fp32", "plain"): (20.0, 3e11), ("fast", "half-bf16", "ours"): (40.0, 1e12),
        ("free", "fp32", "ours"): (30.0, 5e11),
    }  # fmt: skip
    rows = [row(*key, place) for key, place in points.items()]
    figure = roofline.figure([*rows, {"method": "pgd", "error": "left out"}])
    assert [axes.get_title() for axes in figure.axes] == ["fast", "free"]
    for axes in figure.axes:
        drawn = [tuple(zip(*line.get_data(), strict=True)) for line in axes.lines]
        wanted = {place for (method, *_), place in points.items() if method == axes.get_title()}
        assert {line[0] for line in drawn if len(line) == 1} == wanted
        slope, *levels = (line for line in drawn if len(line) == 2)
        assert all(y == pytest.approx(1e11 * x) for x, y in slope)
        assert [line[0] for line in levels] == [(10.0, 1e12), (40.0, 4e12)]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [
        "Bytes of a copy",
        "fp32, and its limit",
        "half-bf16, and its limit",
        "plain, eager",
        "ours, eager",
    ]


def test_config_in_python_is_checked_too() -> None:
    with pytest.raises(UserError, match="methods: wanted some of"):
        BenchConfig(methods=("slow",), device="cpu")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="methods: wanted some of"):
        BenchConfig(methods=(), device="cpu")


def test_steps_that_would_take_too_long_are_fewer() -> None:
    def steps() -> Iterator[torch.Tensor]:
        while True:
            time.sleep(0.01)
            yield torch.zeros(())

    assert measure(steps(), 10_000, torch.device("cpu"), seconds=0.2)["steps"] <= 20
    assert measure(steps(), 3, torch.device("cpu"), seconds=1.0)["steps"] == 3
    assert measure(steps(), 3, torch.device("cpu"), seconds=-1.0)["steps"] == 1
