import base64
import dataclasses
import io
from html.parser import HTMLParser

import pytest
from PIL import Image

from freefast.errors import UserError
from freefast.reporting import Picture, Run, Section, report
from freefast.reporting.table import Column

NASTY = '<script>alert("x")</script>&amp;\'"><img src=http://evil.example/a.png>'
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Tags in order, the text of each table row, all text, and whether every tag is closed in turn."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.lines, self.text, self.headings = [], [], [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + "\n"
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.lines[-1][-1] += data


def make_run(name, **row):
    row = {"method": "free", "setting": "m=8", "natural": 0.839, "pgd10": 0.498, "pgd50": 0.4834, **row}
    config = {"momentum": 0.9, "epsilon": 8 / 255, "alpha": None, "steps": [10, 20], "augment": True}
    return Run(name=name, method="free", metrics=[], row={**row, "samples": 9871}, config=config)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "robust_curves.png"
    Image.new("RGB", (40, 30), (1, 2, 3)).save(path)
    return path


def page(tmp_path, runs, images=(), title="Title", environment=None):
    runs = [dataclasses.replace(run, environment=environment or {}) for run in runs]
    path = report.write(tmp_path, title=title, runs=runs, images=list(images))
    assert path == tmp_path / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_runs_that_method_and_setting_tell_apart_need_no_names(tmp_path):
    parsed = page(tmp_path, [make_run("first"), make_run("second", setting="m=4")])
    assert parsed.lines[0][:2] == ["Method", "Setting"]


def test_table_settings_and_environment_are_there(tmp_path):
    parsed = page(tmp_path, [make_run("first"), make_run("second", pgd20=0.1)], environment={"torch": "2.11.0"})
    assert parsed.lines[0][:7] == ["Run", "Method", "Setting", "Natural", "PGD-10", "PGD-20", "PGD-50"]
    assert parsed.lines[1][:7] == ["first", "free", "m=8", "0.839", "0.498", "—", "0.483"]
    assert (parsed.lines[2][0], parsed.lines[2][5]) == ("second", "0.100")
    words = parsed.text.split()
    for word in ("first", "second", "momentum", "0.9", "0.0313725", "true", "9871", "torch", "2.11.0"):
        assert word in words
    assert "[10, 20]" in parsed.text


def test_environments_that_differ_stand_apart(tmp_path):
    """Time and command are every run's own."""
    both = [
        dataclasses.replace(make_run(name), environment={"torch": version, "date": date})
        for name, version, date in (("first", "2.11.0", "1 May"), ("second", "2.14.1", "2 May"))
    ]
    path = report.write(tmp_path, title="T", runs=both)
    end = Page(path.read_text(encoding="utf-8")).text.partition("Environment")[2].split()
    assert [word for word in end if word in ("first", "second", "2.11.0", "2.14.1")] == [
        "first", "2.11.0", "second", "2.14.1",
    ]  # fmt: skip
    same = [dataclasses.replace(run, environment=run.environment | {"torch": "2.11.0"}) for run in both]
    end = Page(report.write(tmp_path, title="T", runs=same).read_text(encoding="utf-8")).text
    assert end.partition("Environment")[2].split().count("2.11.0") == 1


def test_settings_that_were_left_open_are_what_the_run_took(tmp_path):
    run = make_run("a", guard_samples=143, momentum=0.5)
    run = dataclasses.replace(run, config={"guard_samples": None, "momentum": 0.9, "width": None})
    words = page(tmp_path, [run]).text.partition("Settings")[2].split()
    assert words[words.index("guard_samples") + 1] == "143"
    assert words[words.index("momentum") + 1] == "0.9"
    assert words[words.index("width") + 1] == "\N{EM DASH}"


def test_a_page_says_where_the_test_set_chose(tmp_path):
    runs = [make_run("honest", selected="best"), make_run("peeking", selected="report")]
    assert "peeking: the test set chose the epoch" in page(tmp_path, runs).text
    assert "the test set chose" not in page(tmp_path, runs[:1]).text


def test_what_holds_for_all_runs_stands_above_the_table(tmp_path):
    runs = [make_run("first", dataset="digits", epsilon=0.25), make_run("second", dataset="digits", epsilon=0.5)]
    above = " ".join(page(tmp_path, runs).text.partition("Method")[0].split())
    assert "dataset digits" in above
    assert "samples 9871" in above
    assert "epsilon 0." not in above  # differs from run to run
    assert "attack PGD-N" in above


def test_images_are_the_files_inlined(tmp_path, image):
    parsed = page(tmp_path, [make_run("a")], [image, str(image)])
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert len(images) == 2
    for attributes in images:
        start, data = attributes["src"].split(",", 1)
        assert start == "data:image/png;base64"
        content = base64.b64decode(data, validate=True)
        assert content == image.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            assert (opened.format, opened.size, opened.getpixel((0, 0))) == ("PNG", (40, 30), (1, 2, 3))
        assert attributes["alt"] == "Robust curves"


def test_sections_stand_with_their_tables_texts_and_captions(tmp_path, image):
    columns = [Column("Name", "name", None), Column("Share", "share", 2)]
    sections = [
        Section(heading="Table 4", text="As in the report.", rows=[{"name": "a < b", "share": 0.125}], columns=columns),
        Section(
            heading="Figures", pictures=[Picture(path=image, caption="First & last"), Picture(path=image, caption="")]
        ),
    ]
    path = report.write(tmp_path, title="T", runs=[make_run("a")], sections=sections, banner="scaled down: <1 epoch")
    parsed = Page(path.read_text(encoding="utf-8"))
    assert parsed.headings == ["T", "Results", "Table 4", "Figures", "Settings", "Environment"]
    assert parsed.lines[-2:] == [["Name", "Share"], ["a < b", "0.12"]]
    before, _, after = " ".join(parsed.text.split()).partition("Table 4 As in the report.")
    assert "scaled down: <1 epoch" in before.partition("Results")[0]
    assert "First & last" in after
    assert sum(tag == "img" for tag, _ in parsed.tags) == 2
    assert "banner" not in [attributes.get("class") for _, attributes in page(tmp_path, []).tags]


@pytest.mark.parametrize(("dpi", "size"), [(None, (600, 300)), (96, (600, 300)), (150, (384, 192)), (192, (300, 150))])
def test_a_picture_has_its_own_size_in_inches(tmp_path, dpi, size):
    path = tmp_path / "drawn.png"
    Image.new("RGB", (600, 300)).save(path, **({} if dpi is None else {"dpi": (dpi, dpi)}))
    (attributes,) = [attributes for tag, attributes in page(tmp_path, [], [path]).tags if tag == "img"]
    assert (int(attributes["width"]), int(attributes["height"])) == size
    assert attributes["class"] == ("scrolled" if size[0] == 600 else "shrunk")


def test_nothing_is_fetched_or_run(tmp_path, image):
    parsed = page(tmp_path, [make_run("a")], [image])
    for tag, attributes in parsed.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            assert attributes.get(name, "data:").startswith("data:")
    source = (tmp_path / "report.html").read_text(encoding="utf-8").lower()
    assert "url(" not in source
    assert "@import" not in source
    assert "http:" not in source
    assert "https:" not in source
    policy = [a["content"] for tag, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0].startswith("default-src 'none'")


def test_names_are_escaped_everywhere(tmp_path, image):
    odd = image.with_name("<b>&.png")
    image.rename(odd)
    run = Run(
        name=NASTY,
        method=NASTY,
        metrics=[],
        row={"method": NASTY, "setting": NASTY, NASTY: NASTY},
        config={NASTY + "k": NASTY, "nested": {NASTY: [NASTY]}, "dollar": "$title ${x}"},
    )
    plain = page(tmp_path, [make_run("a")], [odd])
    nasty = page(tmp_path, [run], [odd], title=NASTY, environment={NASTY: NASTY, "list": [NASTY]})
    assert {tag for tag, _ in nasty.tags} == {tag for tag, _ in plain.tags}
    assert sum(tag == "img" for tag, _ in nasty.tags) == 1
    assert nasty.lines[1][:2] == [NASTY, NASTY]
    assert nasty.text.count(NASTY) >= 8
    assert "$title ${x}" in nasty.text
    assert next(a for tag, a in nasty.tags if tag == "img")["alt"] == "<b>&"


def test_a_report_without_runs_or_images(tmp_path):
    parsed = page(tmp_path, [])
    assert len(parsed.lines) == 1


def test_page_adapts_to_dark_mode_and_narrow_screens(tmp_path):
    parsed = page(tmp_path, [make_run("a")])
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in source
    assert any(a.get("name") == "viewport" and "device-width" in a["content"] for _, a in parsed.tags)
    assert next(a["lang"] for tag, a in parsed.tags if tag == "html") == "en"


def test_what_is_not_a_png_is_refused(tmp_path):
    text = tmp_path / "notes.png"
    text.write_text("hello")
    for path, reason in ((text, "wanted a PNG"), (tmp_path / "none.png", "No such file")):
        with pytest.raises(UserError, match=reason) as caught:
            page(tmp_path, [], [path])
        assert str(path) in str(caught.value)
    assert not (tmp_path / "report.html").exists()
