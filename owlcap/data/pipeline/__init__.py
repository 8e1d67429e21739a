"""What the data pipelines share: clips, what models are shown of them, records on disk, Ray Data, reports.

A step of a pipeline turns one clip into one record. Every actor writes its records to a file of its own as they are
finished, so that a run that was ended goes on with the clips that have none; replies of models that did not become a
record yet are found again in the judge cache. Nothing is asked, or paid for, twice.
"""
