"""The report's page: what is gathered for it, its charts, its templates and its style.

`dataset.py`, `training.py`, `videos.py` and `stages.py` each gather one section as plain values; `charts.py` draws
SVG; `thumbnails.py` turns pictures into data URIs within a budget; `page.html.j2` and its parts lay them out. All text
goes through Jinja's autoescape: names, addresses and reasons come from people and from files.
"""
