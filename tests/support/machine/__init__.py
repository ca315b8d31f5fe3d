"""A world for the model-based test of a run: time that leaps, faults at every await, and an oracle.

``loop`` is the event loop whose time leaps and in which a process can die between any two awaits;
``trouble`` says what may go wrong; ``docker`` and ``kopia`` are the shipped fakes with time, faults
and a memory of the truth; ``oracle`` knows what everybody outside expects; ``world`` puts them
together and runs kopiwatch's processes in it.
"""
