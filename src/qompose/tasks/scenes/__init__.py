"""MJCF scenes, written as strings: a scene is a function of plain numbers and needs no simulator to be built."""

HEADER = """
  <compiler angle="radian" autolimits="true"/>
  <visual>
    <global offwidth="960" offheight="960" fovy="45"/>
    <quality shadowsize="1024" offsamples="0"/>
    <headlight ambient=".5 .5 .5" diffuse=".2 .2 .2" specular="0 0 0"/>
  </visual>
  <asset>
    <texture name="floor" type="2d" builtin="checker" rgb1=".95 .95 .93" rgb2=".91 .91 .89" width="256" height="256"/>
    <material name="floor" texture="floor" texrepeat="2 2" texuniform="true" reflectance="0"/>
  </asset>
"""


def goal_marker(goal: tuple[float | None, float | None], reach: float, height: float) -> str:
    """Return a mocap body that shows a goal: a disc, or a strip along the coordinate that is free.

    `reach` is the half length of the strip and `height` where the marker lies, both in metres. The marker touches
    nothing, and being a mocap body it may be moved for a picture (`data.mocap_pos`).
    """
    x, y = goal
    shape = f'type="cylinder" size="{reach / 16} .002"'
    if x is None or y is None:
        along_x = reach if x is None else reach / 40
        along_y = reach if y is None else reach / 40
        shape = f'type="box" size="{along_x} {along_y} .002"'
    return f"""
    <body name="goal" mocap="true" pos="{x or 0.0} {y or 0.0} {height}">
      <geom name="goal" {shape} contype="0" conaffinity="0" rgba=".2 .7 .35 .75"/>
    </body>"""
