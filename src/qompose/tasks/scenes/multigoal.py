"""A point on a plane with a few goals on it."""

from __future__ import annotations

from qompose.tasks.scenes import HEADER


def multigoal_scene(goals: tuple[tuple[float, float], ...], goal_radius: float, half_width: float) -> str:
    """Return the MJCF of the point and its goals, positions and lengths in metres.

    The point is overdamped: its velocity follows the action, 1 m/s at full action, within 10 ms, so that one control
    step of a second moves it by the action, as in a kinematic model. Walls are the limits of the two slides.
    """
    discs = "".join(
        f'<geom name="goal{i}" type="cylinder" size="{goal_radius} .01" pos="{x} {y} -.25" rgba=".2 .7 .35 .75"/>'
        for i, (x, y) in enumerate(goals)
    )
    return f"""<mujoco model="multigoal">{HEADER}
  <option timestep="0.1" gravity="0 0 0" integrator="Euler"><flag autoreset="disable"/></option>
  <default>
    <geom contype="0" conaffinity="0"/>
    <joint type="slide" damping="1" range="-{half_width} {half_width}"/>
  </default>
  <worldbody>
    <light pos="0 0 9" dir="0 0 -1" directional="true" diffuse=".3 .3 .3" castshadow="false"/>
    <camera name="top" pos="0 0 19" xyaxes="1 0 0 0 1 0"/>
    <geom name="outside" type="plane" pos="0 0 -.31" size="20 20 .1" rgba=".8 .8 .78 1"/>
    <geom name="floor" type="plane" pos="0 0 -.3" size="{half_width} {half_width} .1" material="floor"/>
    {discs}
    <body name="point">
      <joint name="x" axis="1 0 0"/>
      <joint name="y" axis="0 1 0"/>
      <geom name="point" type="sphere" size=".25" mass=".01" rgba=".75 .15 .2 1"/>
      <site name="point" size=".01"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="x" joint="x" gear="1" ctrlrange="-1 1"/>
    <motor name="y" joint="y" gear="1" ctrlrange="-1 1"/>
  </actuator>
</mujoco>"""
