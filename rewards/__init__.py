"""What a caption is worth: CSER by a judge, rule rewards, their weighted sum, and the Ray service that scores groups.

base.py     what a reward and a judge are          suite.py    several rewards as one, and their failures
cser.py     the arithmetic of labelled units       service.py  reward actors: `RewardPool.submit`
length.py   value by number of words               joint.py    prompt and reply of the joint protocol
lexical.py  the offline judge of the toy world     openai_judge.py  a judge behind an OpenAI-compatible server
"""
