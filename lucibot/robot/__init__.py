"""An arm that takes hold of the actuator and follows what was learned (paper, section 3.4).

Sees a trajectory, the affordance and the scene; nothing else of perception.
"""
