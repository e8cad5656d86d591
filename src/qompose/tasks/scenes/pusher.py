"""A planar arm of three links with a three-sided fork, and a puck that slides on the plane."""

from __future__ import annotations

from qompose.tasks.scenes import HEADER, goal_marker

# Order of the sites in the scene below: readings index `site_xpos` with these.
FORK_SITE, PUCK_SITE = 0, 1

FLOOR = -0.13  # m: below the base column and the puck; it is there to be seen, nothing rests on it


def pusher_scene(goal: tuple[float | None, float | None], *, spheres: bool = False) -> str:
    """Return the MJCF of the arm and the puck, with a marker at the goal (x, y) in metres.

    Differs from the original model: the puck has a real mass. The original density gave it 6e-8 kg, and since the
    stiffness of a contact scales with the inverse weight of its bodies, the arm went through the puck. The base and
    the first link overlap by design, so that pair is excluded. A diverged state is not silently reset.
    With `spheres` the upright cylinders of puck and base are spheres of the same radius. All that touches them are
    capsules in the plane of their centres, so that the contacts are the same, and MJX finds them exactly.
    """
    puck = 'type="sphere" size=".1"' if spheres else 'type="cylinder" size=".1 .1"'
    base = 'type="sphere" size=".12"' if spheres else 'type="cylinder" size=".12 .12"'
    return f"""<mujoco model="pusher">{HEADER}
  <option timestep="0.01" gravity="0 0 0" integrator="Euler"><flag autoreset="disable"/></option>
  <default>
    <geom condim="1" friction=".8 .1 .1" density="300"/>
    <default class="arm">
      <joint type="hinge" axis="0 0 1" armature=".04" damping="1"/>
      <geom type="capsule" size=".06" rgba=".25 .35 .55 1"/>
    </default>
    <default class="fork"><geom type="capsule" size=".04" rgba=".85 .45 .2 1"/></default>
    <default class="puck">
      <joint type="slide" damping=".5"/>
      <geom {puck} mass=".04" rgba=".75 .15 .2 1"/>
    </default>
  </default>
  <worldbody>
    <light pos="-.6 .6 4" dir=".15 -.15 -1" directional="true" diffuse=".3 .3 .3" specular="0 0 0" castshadow="false"/>
    <camera name="top" pos="0 0 4.3" xyaxes="1 0 0 0 1 0"/>
    <geom name="floor" type="plane" pos="0 0 {FLOOR}" size="2.5 2.5 .1" material="floor" contype="0" conaffinity="0"/>
    {goal_marker(goal, reach=1.6, height=FLOOR + 0.003)}
    <body name="base">
      <geom name="base" {base} rgba=".3 .3 .33 1"/>
    </body>
    <body name="link1" childclass="arm" euler="0 0 .785">
      <joint name="joint1" range="-2.5 2.5"/>
      <geom name="link1" fromto="0 0 0 .4 0 0"/>
      <body name="link2" pos=".4 0 0" euler="0 0 -.785">
        <joint name="joint2" range="-2.32 2.32"/>
        <geom name="link2" fromto="0 0 0 .4 0 0"/>
        <body name="link3" pos=".4 0 0" euler="0 0 -1.57">
          <joint name="joint3" range="-2.3 2.3"/>
          <geom name="link3" fromto="0 0 0 .4 0 0"/>
          <geom name="bar" class="fork" fromto=".4 -.2 0 .4 .2 0"/>
          <geom name="right_prong" class="fork" fromto=".4 -.2 0 .6 -.2 0"/>
          <geom name="left_prong" class="fork" fromto=".4 .2 0 .6 .2 0"/>
          <site name="fork" pos=".4 0 0" size=".01"/>
        </body>
      </body>
    </body>
    <body name="puck" childclass="puck">
      <joint name="puck_x" axis="1 0 0"/>
      <joint name="puck_y" axis="0 1 0"/>
      <geom name="puck"/>
      <site name="puck" size=".01"/>
    </body>
  </worldbody>
  <contact><exclude body1="base" body2="link1"/></contact>
  <actuator>
    <motor name="joint1" joint="joint1" gear="3" ctrlrange="-1 1"/>
    <motor name="joint2" joint="joint2" gear="3" ctrlrange="-1 1"/>
    <motor name="joint3" joint="joint3" gear="3" ctrlrange="-1 1"/>
  </actuator>
</mujoco>"""
