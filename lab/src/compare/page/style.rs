//! How the page looks. Colours are those of Okabe and Ito, which people tell apart whatever they see
//! of red and green; what they mean is also said by place, hatching or dashes.

/// The page's style sheet.
pub(super) const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#f7f7f5;--card:#fff;--ink:#1d2329;--soft:#5a6570;--line:#dfe3e6;\
--done:#0072b2;--lower:#63bdf0;--refused:#e69f00;--silent:#a3400e;--shade:#8a8fa3;--shade-by:.16;\
--eventual:#b3498a;--held:#1a7a4c;--broken:#b3261e;--open:#8a6d00}\
@media(prefers-color-scheme:dark){:root{--bg:#121519;--card:#1a1e24;--ink:#e7eaee;--soft:#9ba6b2;\
--line:#323a43;--done:#4aa8e8;--lower:#a6dbfa;--refused:#f0b23c;--silent:#ea7a4e;--shade:#b9c0d4;\
--shade-by:.13;--eventual:#e58cc0;--held:#2c9463;--broken:#d5463d;--open:#a88717}}\
*{box-sizing:border-box}body{margin:0 auto;padding:2.2em 1.2em 4em;max-width:1120px;background:var(--bg);\
color:var(--ink);font:16px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}\
h1{font-size:2em;line-height:1.2;margin:0 0 .3em;letter-spacing:-.01em}h2{font-size:1.25em;margin:0 0 .5em}\
.lead{font-size:1.08em;color:var(--soft);max-width:46em;margin:.2em 0 1.4em}\
.badge{font-size:.5em;vertical-align:.35em;padding:.2em .7em;border-radius:1em;color:#fff;letter-spacing:.03em}\
.held{background:var(--held)}.broken{background:var(--broken)}.open{background:var(--open)}\
.alarm{border-left:4px solid var(--broken);padding:.3em .8em;background:var(--card);font-weight:600}\
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1.3em 1.5em;margin:0 0 1.2em}\
section p{max-width:52em;margin:.3em 0 .9em}.soft,.note{color:var(--soft)}.note{font-size:.92em}\
ul.said{margin:0;padding:0;list-style:none}ul.said li{padding:.45em 0 .45em 1.5em;position:relative;max-width:56em}\
ul.said li+li{border-top:1px solid var(--line)}ul.said li:before{content:'';position:absolute;left:.2em;top:1.02em;\
width:.55em;height:.55em;border-radius:50%;background:var(--done)}ul.said li.warn:before{background:var(--refused)}\
code,.mono{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:.9em}\
pre{white-space:pre-wrap;word-break:break-word;background:var(--bg);border-radius:8px;padding:.7em .9em;margin:.4em 0}\
.scroll{overflow-x:auto}svg{display:block;font:12px system-ui,-apple-system,'Segoe UI',sans-serif}\
svg text{fill:var(--ink)}svg .soft{fill:var(--soft)}svg .mono{font-size:12px}svg .small{font-size:10.5px}\
svg .head{font-weight:600}.axis{stroke:var(--line);stroke-width:1;fill:none}.frame{fill:none;stroke:var(--line)}\
.shade{fill:var(--shade);fill-opacity:var(--shade-by)}.edge{stroke:var(--shade);stroke-dasharray:3 3;fill:none}\
.done{fill:var(--done)}.lower{fill:var(--lower)}.refused{fill:var(--refused)}.silent{fill:var(--silent)}\
.hatch{stroke:var(--card);stroke-width:1.4}.median{fill:none;stroke:var(--done);stroke-width:1.4}\
.band{fill:var(--done);fill-opacity:.22}.strong{fill:none;stroke:var(--done);stroke-width:1.6}\
.late{fill:none;stroke:var(--eventual);stroke-width:1.6;stroke-dasharray:4 2.5}\
.good{fill:#0b6aa8}.bad{fill:#e69f00}.on-good{fill:#fff!important}.on-bad{fill:#1d2329!important}\
.empty{fill:none;stroke:var(--line)}.wire{stroke:var(--soft);stroke-width:1.4;stroke-opacity:.55}\
.gone{stroke:var(--silent);stroke-width:1.4;stroke-dasharray:3 4;stroke-opacity:.75}\
.holder{fill:var(--done)}.outsider{fill:var(--card);stroke:var(--soft);stroke-width:1.6}\
.crown{fill:none;stroke:var(--refused);stroke-width:3}svg .on-holder{fill:var(--card);font-weight:600}\
.key{display:flex;flex-wrap:wrap;gap:.3em 1.3em;margin:.2em 0 .8em;font-size:.92em;color:var(--soft)}\
.key span{display:inline-flex;align-items:center;gap:.45em}.key svg{flex:none}\
table{border-collapse:collapse;font-size:.8em;font-variant-numeric:tabular-nums}\
th,td{padding:.28em .5em;text-align:right;white-space:nowrap}th{color:var(--soft);font-weight:600;\
border-bottom:1px solid var(--line)}th.left,td.left{text-align:left}tbody tr.first td{border-top:1px solid var(--line)}\
td{vertical-align:top}.scroll+p{margin-top:1.4em}tbody tr:hover td{background:var(--bg)}td.worst{color:var(--broken);font-weight:700}\
@media print{section{break-inside:avoid}}";

/// What fills calls that were not answered: a colour with lines through it.
pub(super) const HATCH: &str = "<defs><pattern id=\"hatch\" width=\"5\" height=\"5\" \
    patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><rect width=\"5\" height=\"5\" \
    class=\"silent\"/><line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"5\" class=\"hatch\"/></pattern></defs>";
