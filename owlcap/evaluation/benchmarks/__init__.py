"""Published benchmarks of video captions, computed as their own scripts do and, where these have a fault, without it.

values.py       what a benchmark asks, what it found, and the result of a run
dream1k.py, vdc.py, hmi_captions.py, hmi_qa.py    one benchmark each: annotations, judging, figures
text_metrics.py BLEU, METEOR, ROUGE and CIDEr         statistics.py   bootstrap over clips
judging.py      the judge's calls, their cost          texts.py        captions and answers from a file
generating.py   captions from a checkpoint or a server run.py          a whole evaluation
comparing.py    two results, paired                    showing.py, page.py    tables and the HTML page
"""
