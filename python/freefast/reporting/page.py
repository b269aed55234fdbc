"""The frame of the HTML report."""

from string import Template

# the policy lets a browser load nothing but this file's own style and inlined images
PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --paper: #ffffff; --band: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa4af; --line: #3a424c; --paper: #0f1318; --band: #181e25; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 64rem;
  font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .6rem; }
.banner { padding: .6rem .8rem; border-left: 4px solid #e69f00; background: var(--band); color: var(--ink); }
p, figcaption { color: var(--soft); font-size: .9rem; max-width: 48rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; font-size: .85rem; color: var(--soft); }
th.text, td.text { text-align: left; }
tr > :first-child {
  position: sticky; left: 0; min-width: 7rem; max-width: 16rem;
  background: var(--paper); font-weight: 600; white-space: normal; overflow-wrap: anywhere;
}
figure { margin: 1.2rem 0; }
img { display: block; max-width: 100%; height: auto; padding: .4rem; border-radius: 6px; background: #ffffff; }
figcaption { margin-top: .3rem; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; background: var(--band); }
summary { padding: .5rem .8rem; cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
dl { margin: 0; }
details > dl { padding: .2rem .8rem .6rem; }
dl > div { display: grid; grid-template-columns: 11rem 1fr; gap: .8rem; padding: .15rem 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  table { font-size: .75rem; }
  th, td { padding: .35rem .25rem; }
  th { font-size: .7rem; }
  tr > :first-child { min-width: 6.5rem; max-width: 8rem; }
  img.scrolled { max-width: none; }
  .wide:has(> .scrolled) + figcaption::before { content: "Scrolls sideways. "; }
  dl > div { grid-template-columns: 8rem 1fr; }
}
</style>
</head>
<body>
<main>
<h1>$title</h1>
$banner
$about
<section>
<h2>Results</h2>
$table
<p>Accuracies are fractions of the test samples. Times are training alone.</p>
</section>
$sections
<section>
<h2>Settings</h2>
$runs
</section>
<section>
<h2>Environment</h2>
$environment
</section>
</main>
</body>
</html>
""")
