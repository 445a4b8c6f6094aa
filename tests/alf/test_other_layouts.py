"""A tree of another layout is recognised by its names, and the advice says what ONE would read."""

import pytest

from alfwatchd.alf.other_layouts import Sight, advise, root_above


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("Cori_2016-12-14/spikes.times.npy", "Cori/2016-12-14/001"),
        ("data/Cori_2016-12-14/x.mat", "Cori/2016-12-14/001"),
        ("Cori-2016-12-14-2/x.mat", "Cori/2016-12-14/002"),
        ("2016-12-14_3_Cori/x.mat", "Cori/2016-12-14/003"),
        ("2016-12-14_Cori/x.mat", "Cori/2016-12-14/001"),
        ("SL_017_20210131/x.mat", "SL_017/2021-01-31/001"),
        ("SL_017_2021_01_31/x.mat", "SL_017/2021-01-31/001"),
    ],
)
def test_subject_and_date_in_one_name_are_taken_apart(file, place):
    assert f"move what is in it to {place}," in advise("/srv/data", Sight([], [file]))


@pytest.mark.parametrize(
    ("folders", "place"),
    [
        (["rawdata", "rawdata/sub-001", "rawdata/sub-001/ses-001_date-20230102"], "sub-001/2023-01-02/001"),
        (["sub-m1_sex-f", "sub-m1_sex-f/ses-01"], "sub-m1_sex-f/2021-01-05/001"),
    ],
)
def test_trees_of_neuroblueprint_and_bids_are_told(folders, place):
    advice = advise("/srv/data", Sight(folders, [f"{folders[-1]}/ephys/x.bin"]))
    assert "NeuroBlueprint" in advice
    assert place in advice


@pytest.mark.parametrize(
    ("root", "above"),
    [
        ("/srv/lab/Subjects/m1/2021-01-05/001", "/srv"),
        ("/srv/lab/Subjects/m1/2021-01-05", "/srv"),
        ("/srv/m1/2021-01-05", "/srv"),
        ("/m1/2021-01-05", "/"),
        ("/srv/lab/Subjects/m1", ""),
        ("/srv/lab", ""),
    ],
)
def test_a_root_inside_a_subject_folder_is_told_by_its_path(root, above):
    assert root_above(root) == above
    if above:
        assert advise(root, Sight([], ["a.b.c"])).endswith(f"did you mean root = {above}?")


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("alf/spikes.times.npy", "there are datasets in alf, and no session folder above them"),
        ("spikes.times.npy", "there are datasets in the root itself"),
        ("m1/session one/x.mat", "nothing in it looks like lab/Subjects/subject/date/number or subject/date/number"),
        ("2016-13-45_Cori/x.mat", "nothing in it looks like"),
        ("2016-12-14/x.mat", "nothing in it looks like"),
        ("serial_120161214/x.mat", "nothing in it looks like"),
    ],
)
def test_all_else_is_told_what_one_reads(file, part):
    assert part in advise("/srv/data", Sight([], [file]))
